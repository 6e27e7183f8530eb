"""ONNX Runtime: every datatype, text, odd graphs, failures, and the options that a configuration may set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Placement
from trygon.models.backends.onnx_options import session_options
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array, Datatype

Load = Callable[..., Any]
Graph = Callable[..., Path]
TYPES = {
    "BOOL": Datatype.BOOL,
    "UINT8": Datatype.UINT8,
    "UINT16": Datatype.UINT16,
    "UINT32": Datatype.UINT32,
    "UINT64": Datatype.UINT64,
    "INT8": Datatype.INT8,
    "INT16": Datatype.INT16,
    "INT32": Datatype.INT32,
    "INT64": Datatype.INT64,
    "FLOAT16": Datatype.FP16,
    "FLOAT": Datatype.FP32,
    "DOUBLE": Datatype.FP64,
    "BFLOAT16": Datatype.BF16,
    "STRING": Datatype.BYTES,
}


def strings(*elements: Any) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def identity(onnx_graph: Graph, kind: str, shape: Any) -> Path:
    return onnx_graph([("Identity", ["x"], ["y"])], [("x", kind, shape)], [("y", kind, shape)])


@pytest.mark.parametrize("shape", [(3, 2), (0, 2)])
@pytest.mark.parametrize(("kind", "datatype"), TYPES.items())
def test_every_datatype_comes_back_as_it_went_in(
    kind: str, datatype: Datatype, shape: tuple[int, ...], load: Load, onnx_graph: Graph
) -> None:
    model = load("onnxruntime", identity(onnx_graph, kind, ["n", 2]))
    assert model.signature.inputs[0].datatype is datatype
    values = np.arange(6).reshape(3, 2)[: shape[0]]
    array = values.astype(str).astype("S").astype(object) if kind == "STRING" else values.astype(datatype.numpy)
    answer = model.run({"x": array}, ["y"])["y"]
    assert answer.dtype == datatype.numpy
    np.testing.assert_array_equal(answer, array)


@pytest.mark.parametrize(("kind", "datatype"), TYPES.items())
def test_scalars_keep_their_rank(kind: str, datatype: Datatype, load: Load, onnx_graph: Graph) -> None:
    model = load("onnxruntime", identity(onnx_graph, kind, []))
    array = np.array(b"1" if kind == "STRING" else 1, dtype=datatype.numpy)
    answer = model.run({"x": array}, ["y"])["y"]
    assert answer.shape == ()
    assert answer == array
    assert not model.signature.batches


def test_text_goes_through_unchanged(load: Load, onnx_graph: Graph) -> None:
    model = load("onnxruntime", identity(onnx_graph, "STRING", ["n"]))
    given = strings(b"", "größe".encode(), b"a\x00b\x00", b"x" * 100_000, "also text")
    answer = model.run({"x": given}, ["y"])["y"]
    assert answer.tolist() == [b"", "größe".encode(), b"a\x00b\x00", b"x" * 100_000, b"also text"]


@pytest.mark.parametrize("element", [b"\xff\xfe", 7, None])
def test_bytes_that_are_not_text_are_refused(element: Any, load: Load, onnx_graph: Graph) -> None:
    model = load("onnxruntime", identity(onnx_graph, "STRING", ["n"]))
    with pytest.raises(InferenceError, match="input 'x' has an element that is not UTF-8") as error:
        model.run({"x": strings(b"fine", element)}, ["y"])
    assert error.value.code is ErrorCode.TENSOR_DATA_INVALID


def test_text_that_the_graph_itself_breaks_is_a_failure_of_the_run(load: Load, onnx_graph: Graph) -> None:
    constant = helper.make_tensor("c", TensorProto.STRING, [1], [b"\xff\xfe"])
    model = load("onnxruntime", onnx_graph([("Identity", ["c"], ["y"])], [], [("y", "STRING", [1])], (constant,)))
    with pytest.raises(InferenceError, match="utf-8") as error:
        model.run({}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_EXECUTION_FAILED


def test_bf16_travels_beside_other_types(load: Load, onnx_graph: Graph) -> None:
    tensors = [("BFLOAT16", "x", "y"), ("FLOAT", "f", "g")]
    model = load(
        "onnxruntime",
        onnx_graph(
            [("Identity", [given], [answered]) for _, given, answered in tensors],
            [(given, kind, ["n"]) for kind, given, _ in tensors],
            [(answered, kind, ["n"]) for kind, _, answered in tensors],
        ),
    )
    wide = np.arange(8).astype(ml_dtypes.bfloat16)
    given = {"x": wide[::2], "f": np.ones(4, np.float32)}
    answer = model.run(given, ["g", "y"])
    np.testing.assert_array_equal(answer["y"], wide[::2])
    np.testing.assert_array_equal(answer["g"], given["f"])
    assert list(model.run(given, ["g"])) == ["g"]
    with pytest.raises(InferenceError, match="takes BF16") as error:
        model.run({**given, "x": np.ones(4, np.float16)}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_INPUT_REJECTED


def test_strings_in_and_bf16_out_is_refused_at_load(load: Load, onnx_graph: Graph) -> None:
    tensors = [("x", "BFLOAT16", ["n"]), ("s", "STRING", ["n"])]
    path = onnx_graph(
        [("Identity", ["x"], ["y"]), ("Identity", ["s"], ["t"])],
        tensors,
        [("y", "BFLOAT16", ["n"]), ("t", "STRING", ["n"])],
    )
    with pytest.raises(InferenceError, match="takes strings and gives BF16"):
        load("onnxruntime", path)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "COMPLEX64", "INT4"])
def test_a_type_that_kserve_lacks_is_refused_at_load(kind: str, load: Load, onnx_graph: Graph) -> None:
    with pytest.raises(InferenceError) as error:
        load("onnxruntime", identity(onnx_graph, kind, ["n"]))
    assert error.value.code is ErrorCode.MODEL_FILE_INVALID


def test_a_graph_may_have_no_inputs(load: Load, onnx_graph: Graph) -> None:
    constant = numpy_helper.from_array(np.array(3, np.float32), "c")
    model = load("onnxruntime", onnx_graph([("Identity", ["c"], ["y"])], [], [("y", "FLOAT", [])], (constant,)))
    assert model.signature.inputs == ()
    assert not model.signature.batches
    assert model.run({}, ["y"])["y"] == 3


@pytest.mark.parametrize(
    ("shape_in", "shape_out", "batches"),
    [(["n", 2], ["n", 2], True), ([4, 2], [4, 2], False), (["n", 2], [4, 2], False), ([2, "n"], [2, "n"], False)],
)
def test_it_batches_when_every_first_dimension_is_of_any_size(
    shape_in: Any, shape_out: Any, *, batches: bool, load: Load, onnx_graph: Graph
) -> None:
    path = onnx_graph([("Identity", ["x"], ["y"])], [("x", "FLOAT", shape_in)], [("y", "FLOAT", shape_out)])
    assert load("onnxruntime", path).signature.batches is batches


def test_a_failure_inside_the_graph_is_told_on_one_line_and_not_logged(
    load: Load, onnx_graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    shape = numpy_helper.from_array(np.array([-1, 4]), "shape")
    model = load(
        "onnxruntime",
        onnx_graph(
            [("Reshape", ["x", "shape"], ["y"])], [("x", "FLOAT", ["n", "m"])], [("y", "FLOAT", ["k", 4])], (shape,)
        ),
    )
    with pytest.raises(InferenceError, match="cannot be reshaped") as error:
        model.run({"x": np.ones((2, 3), np.float32)}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_EXECUTION_FAILED
    assert "\n" not in error.value.message
    assert "onnxruntime_src" not in error.value.message
    assert capfd.readouterr().err == ""


def test_an_index_out_of_range_is_rejected(load: Load, onnx_graph: Graph) -> None:
    table = numpy_helper.from_array(np.ones((3, 1), np.float32), "table")
    path = onnx_graph(
        [("Gather", ["table", "x"], ["y"])], [("x", "INT64", ["n"])], [("y", "FLOAT", ["n", 1])], (table,)
    )
    with pytest.raises(InferenceError, match="out of data bounds") as error:
        load("onnxruntime", path).run({"x": np.array([7])}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_INPUT_REJECTED


def test_an_output_too_large_for_the_machine_is_an_error_of_its_own(load: Load, onnx_graph: Graph) -> None:
    path = onnx_graph([("ConstantOfShape", ["x"], ["y"])], [("x", "INT64", [2])], [("y", "FLOAT", ["n", "m"])])
    with pytest.raises(InferenceError) as error:
        load("onnxruntime", path).run({"x": np.array([2**30, 2**25])}, ["y"])
    assert error.value.code is ErrorCode.DEVICE_OUT_OF_MEMORY


def test_a_missing_operator_is_named(load: Load, onnx_graph: Graph) -> None:
    path = onnx_graph([("Nonesuch", ["x"], ["y"])], [("x", "FLOAT", ["n"])], [("y", "FLOAT", ["n"])])
    with pytest.raises(InferenceError, match="Nonesuch") as error:
        load("onnxruntime", path)
    assert error.value.code is ErrorCode.MODEL_FILE_INVALID


def options(**parameters: str) -> Any:
    config = ModelConfig()
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return session_options(config, Placement(threads=3))


def test_a_session_has_the_threads_of_its_placement() -> None:
    assert options().intra_op_num_threads == 3
    assert options().inter_op_num_threads == 1
    assert options().execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options().graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_a_configuration_may_set_threads_and_execution_mode() -> None:
    found = options(intra_op_thread_count="2", inter_op_thread_count="4", execution_mode="1")
    assert (found.intra_op_num_threads, found.inter_op_num_threads) == (2, 4)
    assert found.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert options(intra_op_thread_count="0").intra_op_num_threads == 3


def test_a_configuration_may_set_the_optimization_level() -> None:
    config = ModelConfig()
    config.optimization.graph.level = 2
    found = session_options(config, Placement())
    assert found.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    config.optimization.graph.level = 3
    with pytest.raises(InferenceError, match=r"optimization\.graph\.level is '3'") as error:
        session_options(config, Placement())
    assert error.value.code is ErrorCode.MODEL_CONFIG_INVALID


@pytest.mark.parametrize("value", ["-1", "many", "", "1e3", "1025", "9" * 5000, "²"])
def test_a_thread_count_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(InferenceError, match=r"parameters\.intra_op_thread_count is") as error:
        options(intra_op_thread_count=value)
    assert error.value.code is ErrorCode.MODEL_CONFIG_INVALID
    assert len(error.value.message) < 300
