"""What a runtime's exception means: the error code, and the runtime's reason on one line without paths."""

import re
from pathlib import Path
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import shorten

MAX_REASON: Final = 500
"""Longest reason that is passed on, in characters; runtimes like to append whole graphs."""

_OUT_OF_MEMORY: Final = re.compile(
    r"failed to allocate memory|bad_alloc|out of memory|OOM when allocating", re.IGNORECASE
)
_DEVICE: Final = re.compile(r"\b(cuda|cudnn|cublas|gpu)", re.IGNORECASE)
_BUILD_PATH: Final = re.compile(r"(?:/\w+)*/onnxruntime/\S+:\d+ ")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


def reason(error: BaseException, file: Path | None = None) -> str:
    """Return what the runtime says, on one line; the path of the model `file` is shortened to its name."""
    text = str(error)
    if file is not None:
        text = text.replace(f"{file.parent}/", "")
    text = " ".join(_CONTROL.sub(" ", _BUILD_PATH.sub("", text)).split())
    return shorten(text or type(error).__name__, MAX_REASON)


def load_failure(error: Exception, file: Path, device: str = "cpu") -> InferenceError:
    """Return why a model file did not load: DEVICE_OUT_OF_MEMORY, DEVICE_UNAVAILABLE or MODEL_FILE_INVALID."""
    why = reason(error, file)
    if _is_out_of_memory(error):
        code = ErrorCode.DEVICE_OUT_OF_MEMORY
    elif device != "cpu" and _DEVICE.search(why):
        code = ErrorCode.DEVICE_UNAVAILABLE
    else:
        code = ErrorCode.MODEL_FILE_INVALID
    return InferenceError(code, f"'{file.name}' cannot be loaded: {why}", file=file.name, reason=why)


def run_failure(error: Exception, *, rejected: bool) -> InferenceError:
    """Return why a run failed: DEVICE_OUT_OF_MEMORY, RUNNER_INPUT_REJECTED (`rejected`) or RUNNER_EXECUTION_FAILED."""
    why = reason(error)
    if _is_out_of_memory(error):
        code = ErrorCode.DEVICE_OUT_OF_MEMORY
    else:
        code = ErrorCode.RUNNER_INPUT_REJECTED if rejected else ErrorCode.RUNNER_EXECUTION_FAILED
    return InferenceError(code, f"the runtime {'refused the input' if rejected else 'failed'}: {why}", reason=why)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None
