"""Which signature of a model file is served."""

from collections.abc import Collection
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.proto.model_config_pb2 import ModelConfig

SIGNATURE_PARAMETER: Final = "TF_SIGNATURE_DEF"
"""The configuration parameter that names a signature (Triton's name for it)."""
DEFAULT_SIGNATURE: Final = "serving_default"


def choose_signature(available: Collection[str], config: ModelConfig) -> str:
    """Return the signature that the configuration names, else `serving_default`, else the only one.

    Raises: MODEL_CONFIG_INVALID, naming all signatures, if the named one is not there or the choice is open.
    """
    wanted = config.parameters[SIGNATURE_PARAMETER].string_value if SIGNATURE_PARAMETER in config.parameters else ""
    if not wanted and len(available) == 1:
        return next(iter(available))
    name = wanted or DEFAULT_SIGNATURE
    if name not in available:
        known = ", ".join(f"'{signature}'" for signature in sorted(available)) or "none"
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID,
            f"the model file has no signature '{name}' that can be served; it has {known}:"
            f" name one with the parameter {SIGNATURE_PARAMETER}",
            signature=name,
            signatures=sorted(available),
        )
    return name
