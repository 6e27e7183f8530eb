"""Who may be let in: what the command and `serve deploy` both refuse."""

from trygon.errors import ErrorCode, InferenceError
from trygon.settings import Profile, Settings


def require_identity_source(settings: Settings) -> None:
    """Refuse profile prod, which lets nobody in unidentified, while there is nothing that could identify anybody.

    Raises: SYSTEM_CONFIG_INVALID.
    """
    if settings.profile is Profile.PROD:
        raise InferenceError(
            ErrorCode.SYSTEM_CONFIG_INVALID,
            "profile prod lets nobody in unidentified, and this version has no identity source to configure: "
            "use profile dev or test on a loopback address",
            profile=settings.profile.value,
        )
