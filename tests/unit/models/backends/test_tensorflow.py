"""TensorFlow: signatures, strings and other types, graphs of unknown rank, failures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Placement
from trygon.models.tensors import Datatype, TensorSpec

Load = Callable[..., Any]
TYPES = {
    "bool": Datatype.BOOL,
    "uint8": Datatype.UINT8,
    "uint16": Datatype.UINT16,
    "uint32": Datatype.UINT32,
    "uint64": Datatype.UINT64,
    "int8": Datatype.INT8,
    "int16": Datatype.INT16,
    "int32": Datatype.INT32,
    "int64": Datatype.INT64,
    "half": Datatype.FP16,
    "float32": Datatype.FP32,
    "float64": Datatype.FP64,
    "bfloat16": Datatype.BF16,
}


@pytest.fixture
def save(tf: Any, tmp_path: Path) -> Callable[..., Path]:
    """Save functions as the signatures of a SavedModel; the specs are (name, dtype, shape)."""

    def save(**signatures: tuple[Callable[..., Any], list[tuple[str, Any, Any]]]) -> Path:
        module = tf.Module()
        functions = {}
        for name, (function, specs) in signatures.items():
            functions[name] = tf.function(
                function,
                input_signature=[tf.TensorSpec(shape, dtype, name=tensor) for tensor, dtype, shape in specs],
                autograph=False,
            )
            setattr(module, name, functions[name])
        tf.saved_model.save(module, str(tmp_path / "model.savedmodel"), signatures=functions)
        return tmp_path

    return save


@pytest.fixture
def two_signatures(tf: Any, save: Callable[..., Path]) -> Path:
    return save(
        serving_default=(lambda x: {"doubled": x * 2}, [("x", tf.float32, [None, 2])]),
        other=(lambda w: {"tripled": w * 3, "same": tf.identity(w)}, [("w", tf.int32, [3])]),
    )


def test_all_signatures_are_visible_and_serving_default_is_served(load: Load, two_signatures: Path) -> None:
    model = load("tensorflow", two_signatures)
    assert set(model.signatures) == {"serving_default", "other"}
    assert model.signature == model.signatures["serving_default"]
    assert model.signature.batches
    assert model.signatures["other"].inputs == (TensorSpec("w", Datatype.INT32, (3,)),)
    np.testing.assert_array_equal(model.run({"x": np.ones((1, 2), np.float32)}, ["doubled"])["doubled"], [[2, 2]])


def test_the_configuration_may_choose_another_signature(load: Load, two_signatures: Path) -> None:
    model = load("tensorflow", two_signatures, parameters={"TF_SIGNATURE_DEF": "other"})
    assert not model.signature.batches
    answer = model.run({"w": np.arange(3, dtype=np.int32)}, ["tripled", "same", "tripled"])
    assert {name: array.tolist() for name, array in answer.items()} == {"tripled": [0, 3, 6], "same": [0, 1, 2]}
    assert model.run({"w": np.arange(3, dtype=np.int32)}, ["same"])["same"].tolist() == [0, 1, 2]


def test_an_unknown_signature_is_refused_naming_those_there_are(load: Load, two_signatures: Path) -> None:
    with pytest.raises(InferenceError, match="it has 'other', 'serving_default'") as error:
        load("tensorflow", two_signatures, parameters={"TF_SIGNATURE_DEF": "nothing"})
    assert error.value.code is ErrorCode.MODEL_CONFIG_INVALID


def test_an_unknown_tag_is_refused_naming_those_there_are(load: Load, two_signatures: Path) -> None:
    with pytest.raises(InferenceError, match=r"TF_GRAPH_TAG.*serve") as error:
        load("tensorflow", two_signatures, parameters={"TF_GRAPH_TAG": "nothing"})
    assert error.value.code is ErrorCode.MODEL_CONFIG_INVALID
    assert load("tensorflow", two_signatures, parameters={"TF_GRAPH_TAG": "serve"}).signature.batches


def test_strings_go_through_as_bytes(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    path = save(serving_default=(lambda s: {"t": tf.strings.join([s, "!"])}, [("s", tf.string, [None, 1])]))
    model = load("tensorflow", path)
    assert model.signature.inputs == (TensorSpec("s", Datatype.BYTES, (-1, 1)),)
    given = np.array([[b"a"], [b"\xff\x00"], [b""]], dtype=object)
    assert model.run({"s": given}, ["t"])["t"].tolist() == [[b"a!"], [b"\xff\x00!"], [b"!"]]


def test_strings_that_are_neither_text_nor_bytes_fail_alone(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    path = save(serving_default=(lambda s: {"t": tf.identity(s)}, [("s", tf.string, [None])]))
    model = load("tensorflow", path)
    with pytest.raises(InferenceError) as error:
        model.run({"s": np.array([7, None], dtype=object)}, ["t"])
    assert error.value.code is ErrorCode.RUNNER_EXECUTION_FAILED
    assert model.run({"s": np.array([b"x"], dtype=object)}, ["t"])["t"].tolist() == [b"x"]


def test_every_datatype_comes_back_as_it_went_in(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    specs = [(name, getattr(tf, name), [None, 2]) for name in TYPES]
    path = save(serving_default=(lambda *tensors: {f"{t.dtype.name}_out": tf.identity(t) for t in tensors}, specs))
    model = load("tensorflow", path)
    given = {name: np.arange(4).reshape(2, 2).astype(datatype.numpy) for name, datatype in TYPES.items()}
    answer = model.run(given, [output.name for output in model.signature.outputs])
    assert {spec.name: spec.datatype for spec in model.signature.inputs} == TYPES
    for name, array in given.items():
        found = answer[f"{getattr(tf, name).name}_out"]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_a_tensor_of_unknown_rank_takes_any_shape(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    model = load("tensorflow", save(serving_default=(lambda x: {"y": x + 1}, [("x", tf.float32, None)])))
    assert not model.signature.batches
    for shape in ((), (2,), (1, 2, 3)):
        assert model.run({"x": np.zeros(shape, np.float32)}, ["y"])["y"].shape == shape


def test_a_scalar_stays_a_scalar(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    model = load("tensorflow", save(serving_default=(lambda x: {"y": x + 1}, [("x", tf.float32, [])])))
    assert not model.signature.batches
    assert model.run({"x": np.array(1, np.float32)}, ["y"])["y"] == 2
    with pytest.raises(InferenceError, match=r"has shape \[1\]; the model takes \[\]"):
        model.run({"x": np.ones(1, np.float32)}, ["y"])


def test_what_the_graph_refuses_is_rejected_with_its_reason(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    path = save(serving_default=(lambda x: {"y": tf.reshape(x, [-1, 4])}, [("x", tf.float32, [None])]))
    with pytest.raises(InferenceError, match="multiple of 4") as error:
        load("tensorflow", path).run({"x": np.ones(3, np.float32)}, ["y"])
    assert error.value.code is ErrorCode.RUNNER_INPUT_REJECTED
    assert "\n" not in error.value.message


def test_a_signature_that_kserve_cannot_express_is_not_offered(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    path = save(
        serving_default=(lambda x: {"y": x + 1}, [("x", tf.float32, [None])]),
        complex=(lambda x: {"y": x + 1}, [("x", tf.complex64, [None])]),
    )
    assert set(load("tensorflow", path).signatures) == {"serving_default"}
    with pytest.raises(InferenceError, match="it has 'serving_default'"):
        load("tensorflow", path, parameters={"TF_SIGNATURE_DEF": "complex"})


def save_multiplier(tf: Any, factor: float, folder: Path) -> Path:
    module = tf.Module()
    module.factor = tf.Variable(factor)
    module.run = tf.function(
        lambda x: {"y": x * module.factor},
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")],
        autograph=False,
    )
    tf.saved_model.save(module, str(folder / "model.savedmodel"), signatures={"serving_default": module.run})
    return folder


def test_two_models_and_their_variables_stay_apart(tf: Any, load: Load, tmp_path: Path) -> None:
    placement = Placement(instances=2, threads=2)
    twice = load("tensorflow", save_multiplier(tf, 2.0, tmp_path / "twice"), placement)
    fivefold = load("tensorflow", save_multiplier(tf, 5.0, tmp_path / "fivefold"), placement)
    one = np.ones(1, np.float32)
    assert [model.run({"x": one}, ["y"])["y"].item() for model in (twice, fivefold)] == [2, 5]
    twice.close()
    assert fivefold.run({"x": one}, ["y"])["y"].item() == 5


def test_callers_may_ask_for_any_set_of_outputs(tf: Any, load: Load, save: Callable[..., Path]) -> None:
    count = 20  # more than the compiled calls that are kept
    path = save(
        serving_default=(lambda x: {f"y{number}": x + number for number in range(count)}, [("x", tf.int32, [None])])
    )
    model = load("tensorflow", path)
    for first in range(count):
        wanted = [f"y{number}" for number in range(first, count)]
        answer = model.run({"x": np.zeros(1, np.int32)}, wanted)
        assert {name: array.item() for name, array in answer.items()} == {name: int(name[1:]) for name in wanted}
