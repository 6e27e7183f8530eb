"""Runtimes' exceptions as error codes, and their reasons as one line."""

from pathlib import Path

import pytest

from trygon.errors import ErrorCode
from trygon.models.backends.failures import MAX_REASON, load_failure, reason, run_failure


def test_a_reason_is_one_line_without_the_folders_of_this_machine() -> None:
    error = ValueError("\x1b[1mcannot read\n /srv/models/m/1/model.onnx:\n\tbad header")
    assert reason(error, Path("/srv/models/m/1/model.onnx")) == "[1mcannot read model.onnx: bad header"


def test_a_long_reason_is_cut_and_an_empty_one_is_the_type() -> None:
    assert len(reason(ValueError("x" * 10_000))) <= MAX_REASON + 1
    assert reason(ValueError()) == "ValueError"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("CUDA out of memory")])
def test_too_little_memory_has_a_code_of_its_own(error: Exception) -> None:
    assert run_failure(error, rejected=False).code is ErrorCode.DEVICE_OUT_OF_MEMORY
    assert load_failure(error, Path("/m/model.onnx")).code is ErrorCode.DEVICE_OUT_OF_MEMORY


def test_what_a_gpu_says_at_load_is_about_the_device() -> None:
    error = RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
    assert load_failure(error, Path("/m/model.onnx"), "cuda").code is ErrorCode.DEVICE_UNAVAILABLE
    assert load_failure(error, Path("/m/model.onnx")).code is ErrorCode.MODEL_FILE_INVALID
