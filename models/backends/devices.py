"""The devices that a runtime knows."""

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Placement


def check_device(placement: Placement, supported: tuple[str, ...], *, runtime: str) -> None:
    """Check that `runtime` can run a model on the placement's kind of device.

    Raises: DEVICE_UNSUPPORTED, naming the devices that it can use.
    """
    if placement.device not in supported:
        raise InferenceError(
            ErrorCode.DEVICE_UNSUPPORTED,
            f"{runtime} has no device '{placement.device}' here; it runs on {' and '.join(supported)}",
            device=placement.device,
            supported=list(supported),
        )


def device_missing(placement: Placement, why: str) -> InferenceError:
    """Return the error for a device that the runtime knows and this machine lacks: DEVICE_UNAVAILABLE."""
    device = f"{placement.device}:{placement.device_index}"
    return InferenceError(ErrorCode.DEVICE_UNAVAILABLE, f"device '{device}' is not available: {why}", device=device)
