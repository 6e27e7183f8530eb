"""Outputs as their top classes."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from trygon.deployments.api.open_inference.classification import classify
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import Tensor, from_array, split_strings


def classes(values: Any, count: int, *, labels: tuple[str, ...] = (), batched: bool = True) -> tuple[Any, list[str]]:
    tensor = classify(from_array("y", np.asarray(values)), count, labels=labels, batched=batched)
    return tensor.shape, [item.decode() for item in split_strings(tensor.data, tensor="y")]


def test_each_row_is_classified() -> None:
    assert classes(np.array([[0.1, 0.9], [3, 2]], np.float32), 1) == ((2, 1), ["0.900000:1", "3.000000:0"])


def test_without_a_batch_the_whole_tensor_is_one_vector() -> None:
    assert classes(np.array([[1, 2], [4, 3]], np.int64), 3, batched=False) == ((3,), ["4:2", "3:3", "2:1"])


def test_labels_are_added_where_there_are_any() -> None:
    assert classes(np.array([[1.0, 2.0]]), 2, labels=("cat",)) == ((1, 2), ["2.000000:1", "1.000000:0:cat"])


def test_equal_scores_come_in_class_order_and_more_classes_than_there_are_is_all() -> None:
    assert classes(np.zeros((1, 3), np.uint8), 99) == ((1, 3), ["0:0", "0:1", "0:2"])


def test_extreme_integers_keep_their_order() -> None:
    assert classes(np.array([[-128, 127, 0]], np.int8), 3)[1] == ["127:1", "0:2", "-128:0"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_has_classes(dtype: Any) -> None:
    assert classes(np.array([[1, 2]], dtype), 1)[1] == ["2.000000:1"]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_has_no_classes(shape: tuple[int, int]) -> None:
    assert classes(np.zeros(shape, np.float32), 2)[1] == []


@pytest.mark.parametrize("values", [np.array([[True]]), np.array([["x"]], object)])
def test_strings_and_booleans_have_no_classes(values: Any) -> None:
    tensor: Tensor = from_array("y", values)
    with pytest.raises(InferenceError) as caught:
        classify(tensor, 1, labels=(), batched=True)
    assert caught.value.code is ErrorCode.REQUEST_PARAMETER_INVALID
