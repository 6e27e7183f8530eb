"""The factory of backends: names, and that a process imports only the runtime that it runs."""

import subprocess
import sys

import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends import backend

RUNTIMES = {"onnxruntime": "onnxruntime", "tensorflow": "tensorflow", "litert": "ai_edge_litert"}


@pytest.mark.parametrize("name", ["", "onnx", "python", "../onnx", "base"])
def test_an_unknown_backend_is_refused(name: str) -> None:
    with pytest.raises(InferenceError, match="there is no backend") as error:
        backend(name)
    assert error.value.code is ErrorCode.MODEL_BACKEND_UNKNOWN


@pytest.mark.parametrize("name", ["", "onnxruntime", "litert"])
def test_a_process_imports_only_the_runtime_that_it_asks_for(name: str) -> None:
    ask = f"backend({name!r})" if name else "pass"
    script = f"import sys; from trygon.models.backends import backend; {ask}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - fixed text
    imported = set(done.stdout.split()) & set(RUNTIMES.values())
    assert imported == ({RUNTIMES[name]} if name else set())
    assert done.stderr == ""
