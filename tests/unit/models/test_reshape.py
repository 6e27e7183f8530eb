"""Reshape: callers and model file see different shapes of the same values."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel, Signature
from trygon.models.config import parse_config
from trygon.models.reshape import reshape, with_reshape
from trygon.models.tensors import Array

SIGNATURE = Signature("test", (), (), batches=True)


class Echo:
    """A loaded model that gives its input `x` as `y`, and keeps what it was given."""

    def __init__(self) -> None:
        self.signature = SIGNATURE
        self.seen: dict[str, Array] = {}
        self.closed = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.seen = dict(inputs)
        return dict.fromkeys(outputs, inputs["x"])

    def close(self) -> None:
        self.closed = True


def reshaped(text: str) -> tuple[Echo, LoadedModel]:
    echo = Echo()
    return echo, with_reshape(echo, parse_config(text, source="s"))


def test_a_model_without_reshapes_is_left_as_it_is() -> None:
    echo, model = reshaped('max_batch_size: 4 input { name: "x" dims: 3 } output { name: "y" dims: 3 }')
    assert model is echo


def test_inputs_and_outputs_are_reshaped_behind_the_batch_dimension() -> None:
    echo, model = reshaped(
        'max_batch_size: 4 input { name: "x" dims: [ 2, 3 ] reshape { shape: 6 } } input { name: "w" dims: 1 }'
        'output { name: "y" dims: [ 3, 2 ] reshape { shape: 6 } } output { name: "z" dims: 6 }'
    )
    x = np.arange(12).reshape(2, 2, 3)
    results = model.run({"x": x, "w": np.ones((2, 1))}, ["y", "z"])
    assert echo.seen["x"].shape == (2, 6)
    assert echo.seen["w"].shape == (2, 1)
    assert results["y"].tolist() == x.reshape(2, 3, 2).tolist()
    assert results["z"].shape == (2, 6)


def test_a_scalar_per_row_is_shown_as_one_element() -> None:
    echo, model = reshaped(
        'max_batch_size: 4 input { name: "x" dims: 1 reshape { } } output { name: "y" dims: 1 reshape { } }'
    )
    result = model.run({"x": np.array([[1], [2]])}, ["y"])
    assert echo.seen["x"].tolist() == [1, 2]
    assert result["y"].tolist() == [[1], [2]]


def test_a_model_that_does_not_batch_is_reshaped_whole() -> None:
    echo, model = reshaped('input { name: "x" dims: [ 2, 3 ] reshape { shape: 6 } }')
    model.run({"x": np.zeros((2, 3))}, [])
    assert echo.seen["x"].shape == (6,)


def test_dimensions_of_any_size_keep_their_order() -> None:
    array = np.zeros((5, 7, 4, 9), dtype=object)
    assert reshape(array, (-1, 4, -1), (-1, 2, 2, -1), batches=True).shape == (5, 7, 2, 2, 9)


def test_an_output_that_is_not_what_its_reshape_says_is_a_fault_of_the_model() -> None:
    for shape in ("6", "[ 2, 3 ]"):
        _, model = reshaped(f'max_batch_size: 4 output {{ name: "y" dims: [ 3, 2 ] reshape {{ shape: {shape} }} }}')
        with pytest.raises(InferenceError) as caught:
            model.run({"x": np.zeros((2, 5))}, ["y"])
        assert caught.value.code is ErrorCode.RUNNER_OUTPUT_INVALID


def test_signature_and_close_are_the_model_s_own() -> None:
    echo, model = reshaped('input { name: "x" dims: 1 reshape { } }')
    assert model.signature is SIGNATURE
    model.close()
    assert echo.closed
