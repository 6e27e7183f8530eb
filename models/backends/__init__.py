"""The runtimes, one file each, imported only in the replica that needs them.

Ask it for a backend by name (`onnxruntime`, `tensorflow`, `litert`); it never decides which model runs where.
"""

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Backend


def backend(name: str) -> Backend:
    """Return the backend called `name`, importing its runtime (TensorFlow takes about 7 s).

    Raises: MODEL_BACKEND_UNKNOWN.
    """
    # A process imports the runtimes that it runs and no other: they cost seconds and hundreds of megabytes.
    match name:
        case "onnxruntime":
            from trygon.models.backends.onnx import OnnxBackend  # noqa: PLC0415 - imported when it is needed

            return OnnxBackend()
        case "tensorflow":
            from trygon.models.backends.tensorflow import TensorflowBackend  # noqa: PLC0415 - imported when needed

            return TensorflowBackend()
        case "litert":
            from trygon.models.backends.litert import LitertBackend  # noqa: PLC0415 - imported when it is needed

            return LitertBackend()
    raise InferenceError(ErrorCode.MODEL_BACKEND_UNKNOWN, f"there is no backend '{name}'", backend=name)
