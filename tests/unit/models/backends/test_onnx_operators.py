"""Custom operators of ONNX models: a compiled library runs, and what is no such library is refused by name."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trygon.errors import ErrorCode, InferenceError
from trygon.models.proto.model_config_pb2 import ModelOperations

ROOT = Path(__file__).resolve().parents[4]
Load = Callable[..., Any]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Compile the benchmark's operator, `bench.Sleep`, which answers with one zero."""
    path = tmp_path_factory.mktemp("operators") / "libsleep.so"
    source = ROOT / "benchmarks" / "field" / "sleep_op.c"
    subprocess.run(["/usr/bin/cc", "-O1", "-shared", "-fPIC", "-o", path, source], check=True)  # noqa: S603 - a fixed command
    return path.read_bytes()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Write a model whose graph adds what the operator answers; return its version's folder."""
    path = tmp_path / "model" / "1"
    path.mkdir(parents=True)
    nodes = [
        helper.make_node("Sleep", ["x"], ["zero"], domain="bench", microseconds=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "test", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("bench", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path / "model.onnx")
    return path


def test_a_library_in_the_model_s_folder_brings_its_operators(load: Load, version: Path, library: bytes) -> None:
    (version.parent / "libsleep.so").write_bytes(library)
    given = np.arange(4, dtype=np.float32).reshape(2, 2)
    for _ in range(2):
        model = load("onnxruntime", version, model_operations=ModelOperations(op_library_filename=["libsleep.so"]))
        np.testing.assert_array_equal(model.run({"x": given}, ["y"])["y"], given)


def test_a_library_may_lie_beside_the_model_file(load: Load, version: Path, library: bytes) -> None:
    (version / "libsleep.so").write_bytes(library)
    model = load("onnxruntime", version, model_operations=ModelOperations(op_library_filename=["1/libsleep.so"]))
    assert model.signature.batches


def test_without_its_library_a_model_does_not_load(load: Load, version: Path) -> None:
    with pytest.raises(InferenceError, match="bench") as error:
        load("onnxruntime", version)
    assert error.value.code is ErrorCode.MODEL_FILE_INVALID


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(60)])
def test_a_file_that_is_no_library_is_refused_and_named(load: Load, version: Path, content: bytes) -> None:
    (version.parent / "broken.so").write_bytes(content)
    with pytest.raises(InferenceError, match=r"'broken\.so' cannot be loaded") as error:
        load("onnxruntime", version, model_operations=ModelOperations(op_library_filename=["broken.so"]))
    assert error.value.code is ErrorCode.MODEL_FILE_INVALID
    assert str(version.parent) not in error.value.message


@pytest.mark.parametrize("name", ["../other.so", "/lib/x86_64-linux-gnu/libc.so.6", "", "link.so"])
def test_a_library_outside_the_model_s_folder_is_refused(load: Load, version: Path, library: bytes, name: str) -> None:
    outside = version.parent.parent / "other.so"
    outside.write_bytes(library)
    (version.parent / "link.so").symlink_to(outside)
    with pytest.raises(InferenceError, match="does not lie in the model's folder") as error:
        load("onnxruntime", version, model_operations=ModelOperations(op_library_filename=[name]))
    assert error.value.code is ErrorCode.MODEL_CONFIG_INVALID


def test_a_library_that_is_not_there_is_missing(load: Load, version: Path) -> None:
    with pytest.raises(InferenceError, match=r"no file 'none\.so'") as error:
        load("onnxruntime", version, model_operations=ModelOperations(op_library_filename=["none.so"]))
    assert error.value.code is ErrorCode.MODEL_FILE_MISSING
