"""LiteRT: graphs of a fixed batch, names, types, operators that are missing, and files that are let go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import Datatype, TensorSpec

Load = Callable[..., Any]
Graph = Callable[..., Path]
FLOATS = np.arange(28, dtype=np.float32).reshape(7, 2, 2)
TYPES = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "bfloat16"),
]


def test_a_batch_of_one_is_resized_where_the_graph_allows_it(load: Load, litert_graph: Graph, tf: Any) -> None:
    model = load("litert", litert_graph(lambda x: {"y": x * 2}, ("x", tf.float32, [1, 2, 2])))
    assert model.signature.batches
    assert model.signature.inputs == (TensorSpec("x", Datatype.FP32, (-1, 2, 2)),)
    assert model.signature.outputs == (TensorSpec("y", Datatype.FP32, (-1, 2, 2)),)
    for rows in (7, 1, 3, 3):
        np.testing.assert_array_equal(model.run({"x": FLOATS[:rows]}, ["y"])["y"], FLOATS[:rows] * 2)


def test_a_batch_of_one_is_split_where_it_does_not(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": tf.reshape(x, [1, 4]) * 2.0}, ("x", tf.float32, [1, 2, 2]))
    model = load("litert", path)
    assert model.signature.batches
    for rows in (7, 1):
        answer = model.run({"x": FLOATS[:rows]}, ["y"])["y"]
        np.testing.assert_array_equal(answer, FLOATS[:rows].reshape(rows, 4) * 2)
    assert model.run({"x": FLOATS[:0]}, ["y"])["y"].shape == (0, 4)


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_rows_beyond_a_fixed_batch_are_filled_up(rows: int, load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": tf.reshape(x, [3, 4]) * 2.0}, ("x", tf.float32, [3, 2, 2]))
    model = load("litert", path, max_batch_size=8)
    assert model.signature.batches
    np.testing.assert_array_equal(model.run({"x": FLOATS[:rows]}, ["y"])["y"], FLOATS[:rows].reshape(rows, 4) * 2)


def test_a_fixed_first_dimension_is_no_batch_unless_the_configuration_says_so(
    load: Load, litert_graph: Graph, tf: Any
) -> None:
    path = litert_graph(lambda x: {"y": x * 2}, ("x", tf.float32, [3, 2, 2]))
    model = load("litert", path)
    assert not model.signature.batches
    assert model.signature.inputs[0].shape == (3, 2, 2)
    assert model.run({"x": FLOATS[:3]}, ["y"])["y"].shape == (3, 2, 2)
    with pytest.raises(InferenceError, match=r"takes \[3, 2, 2\]"):
        model.run({"x": FLOATS}, ["y"])
    assert load("litert", path, max_batch_size=4).signature.batches


def test_a_sum_over_the_rows_is_not_taken_for_a_batch(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": tf.reduce_sum(x)}, ("x", tf.float32, [None, 2]))
    model = load("litert", path)
    assert not model.signature.batches
    assert model.run({"x": np.ones((5, 2), np.float32)}, ["y"])["y"] == 10


def test_inputs_with_different_first_dimensions_are_no_batch(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda a, b: {"y": a + b}, ("a", tf.float32, [1, 2]), ("b", tf.float32, [4, 2]))
    assert not load("litert", path, max_batch_size=2).signature.batches


def test_inputs_of_a_batch_must_have_equal_rows(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda a, b: {"y": a + b}, ("a", tf.float32, [None, 2]), ("b", tf.float32, [None, 2]))
    model = load("litert", path)
    with pytest.raises(InferenceError, match="different numbers of rows") as error:
        model.run({"a": np.ones((2, 2), np.float32), "b": np.ones((3, 2), np.float32)}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_INPUT_REJECTED


def test_other_dimensions_may_be_of_any_size_too(load: Load, litert_graph: Graph, tf: Any) -> None:
    kernel = np.ones((3, 3, 1, 1), np.float32)
    path = litert_graph(lambda x: {"y": tf.nn.conv2d(x, kernel, 1, "VALID")}, ("x", tf.float32, [None, None, None, 1]))
    model = load("litert", path)
    assert model.signature.batches
    for shape in ((2, 5, 5, 1), (3, 4, 6, 1)):
        answer = model.run({"x": np.ones(shape, np.float32)}, ["y"])["y"]
        assert answer.shape == (shape[0], shape[1] - 2, shape[2] - 2, 1)
        assert (answer == 9).all()
    with pytest.raises(InferenceError) as error:
        model.run({"x": np.ones((1, 2, 2, 1), np.float32)}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_INPUT_REJECTED
    with pytest.raises(InferenceError, match="no empty dimensions"):
        model.run({"x": np.ones((1, 0, 5, 1), np.float32)}, ["y"])
    assert model.run({"x": np.ones((1, 3, 3, 1), np.float32)}, ["y"])["y"].item() == 9


def test_a_failure_of_the_graph_is_told_and_survived(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": tf.gather(tf.constant([1.0, 2.0]), x)}, ("x", tf.int32, [None]))
    model = load("litert", path)
    with pytest.raises(InferenceError, match="gather index out of bounds") as error:
        model.run({"x": np.array([7], np.int32)}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_EXECUTION_FAILED
    assert model.run({"x": np.array([1], np.int32)}, ["y"])["y"].item() == 2


def test_every_datatype_comes_back_as_it_went_in(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(
        lambda *tensors: {f"{t.dtype.name}_out": tf.reshape(t, [-1, 2]) for t in tensors},
        *((name, getattr(tf, name), [None, 2]) for name in TYPES),
    )
    model = load("litert", path)
    given = {name: np.arange(6).reshape(3, 2).astype(getattr(tf, name).as_numpy_dtype) for name in TYPES}
    answer = model.run(given, [f"{name}_out" for name in TYPES])
    for name, array in given.items():
        assert answer[f"{name}_out"].dtype == array.dtype
        np.testing.assert_array_equal(answer[f"{name}_out"], array)


def test_strings_go_through_as_bytes(load: Load, litert_graph: Graph, tf: Any) -> None:
    model = load("litert", litert_graph(lambda s: {"t": tf.reshape(s, [-1, 2])}, ("s", tf.string, [None, 2])))
    assert model.signature.inputs[0].datatype is Datatype.BYTES
    given = np.array([[b"a", b"\xff\x00"], [b"", b"x" * 1000]], dtype=object)
    assert model.run({"s": given}, ["t"])["t"].tolist() == given.tolist()


def test_a_type_that_kserve_lacks_is_refused_at_load(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": tf.reshape(x, [-1, 2])}, ("x", tf.complex64, [None, 2]))
    with pytest.raises(InferenceError, match="complex64") as error:
        load("litert", path)
    assert error.value.code is ErrorCode.MODEL_FILE_INVALID


@pytest.mark.parametrize("rows", [1, None])
def test_an_operator_that_litert_lacks_is_told_at_load(rows: Any, load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": tf.linalg.det(x)}, ("x", tf.float32, [rows, 2, 2]), select_tf=True)
    with pytest.raises(InferenceError, match="MatrixDeterminant") as error:
        load("litert", path)
    assert error.value.code is ErrorCode.MODEL_FILE_INVALID


def test_a_file_without_signatures_has_the_names_of_its_tensors(load: Load, litert_graph: Graph, tf: Any) -> None:
    path = litert_graph(lambda x: {"y": x * 2}, ("x", tf.float32, [None, 2, 2]))
    file = path / "model.tflite"
    model = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    model.signatureDefs = None
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    loaded = load("litert", path)
    assert [spec.name for spec in loaded.signature.inputs] == ["x"]
    assert loaded.signature.batches
    output = loaded.signature.outputs[0].name
    for rows in (7, 1, 7):
        np.testing.assert_array_equal(loaded.run({"x": FLOATS[:rows]}, [output])[output], FLOATS[:rows] * 2)


def test_the_configuration_may_choose_a_signature(load: Load, tf: Any, tmp_path: Path) -> None:
    module = tf.Module()
    functions = {
        name: tf.function(
            lambda x, factor=factor: {"y": x * factor},
            input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")],
            autograph=False,
        )
        for name, factor in (("twice", 2.0), ("thrice", 3.0))
    }
    module.twice, module.thrice = functions.values()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=functions)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"), signature_keys=list(functions))
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    for name, factor in (("twice", 2), ("thrice", 3)):
        model = load("litert", tmp_path, parameters={"TF_SIGNATURE_DEF": name})
        assert model.run({"x": np.ones((3, 2), np.float32)}, ["y"])["y"].tolist() == [[factor, factor]] * 3
    with pytest.raises(InferenceError, match="it has 'thrice', 'twice'") as error:
        load("litert", tmp_path)
    assert error.value.code is ErrorCode.MODEL_CONFIG_INVALID


# TensorFlow's own converter warns of its own interpreter, with which it calibrates.
@pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning")
def test_a_quantised_model_takes_its_integers(load: Load, tf: Any, tmp_path: Path) -> None:
    module = tf.Module()
    module.run = tf.function(
        lambda x: {"y": tf.matmul(x, tf.ones([4, 2]))},
        input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")],
        autograph=False,
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"x": np.full((1, 4), value, np.float32)} for value in (-1, 0, 1))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    model = load("litert", tmp_path)
    assert [spec.datatype for spec in (*model.signature.inputs, *model.signature.outputs)] == [Datatype.INT8] * 2
    answer = model.run({"x": np.full((2, 4), 127, np.int8)}, ["y"])["y"]
    assert answer.tolist() == [[127, 127], [127, 127]]


def test_the_file_is_not_held_open_or_mapped(load: Load, digits: Callable[[str], Path]) -> None:
    model = load("litert", digits("litert"))
    assert "model.tflite" not in Path("/proc/self/maps").read_text()
    model.close()
