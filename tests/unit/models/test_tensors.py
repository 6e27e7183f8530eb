"""Tensors: sizes are checked, values survive the way to bytes and back, and nothing hostile gets through."""

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import (
    Array,
    Datatype,
    Tensor,
    check_size,
    datatype_of,
    element_count,
    from_array,
    join_strings,
    parse_datatype,
    split_strings,
    to_array,
)

NUMERIC = [datatype for datatype in Datatype if datatype not in {Datatype.BYTES, Datatype.BF16}]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def code_of(call: Callable[..., object], *args: Any, **kwargs: Any) -> ErrorCode:
    with pytest.raises(InferenceError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def refusal_of(call: Callable[..., object], *args: Any, **kwargs: Any) -> ErrorCode | None:
    try:
        call(*args, **kwargs)
    except InferenceError as error:
        return error.code
    return None


@given(st.sampled_from(NUMERIC), st.data())
def test_arrays_survive_the_way_to_a_tensor_and_back(datatype: Datatype, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(datatype.numpy, shapes))
    tensor = from_array("x", array)
    check_size(tensor)
    assert tensor.datatype is datatype
    assert tensor.shape == array.shape
    np.testing.assert_array_equal(to_array(tensor), array)


@given(hnp.arrays(np.float32, shapes, elements=st.floats(width=16)))
def test_bfloat16_arrays_survive_the_way_to_a_tensor_and_back(array: Array) -> None:
    brain = array.astype(ml_dtypes.bfloat16)
    tensor = from_array("x", brain)
    check_size(tensor)
    assert tensor.datatype is Datatype.BF16
    assert to_array(tensor).tobytes() == brain.tobytes()


@given(hnp.arrays(object, shapes, elements=st.binary(max_size=20)))
def test_bytes_arrays_survive_the_way_to_a_tensor_and_back(array: Array) -> None:
    tensor = from_array("x", array)
    check_size(tensor)
    assert tensor.datatype is Datatype.BYTES
    np.testing.assert_array_equal(to_array(tensor), array)


@given(st.lists(st.binary(max_size=300)))
def test_joined_strings_split_into_the_same_strings(elements: list[bytes]) -> None:
    assert split_strings(join_strings(elements, tensor="x"), tensor="x") == elements


@given(st.binary(max_size=40))
def test_split_strings_of_any_bytes_gives_elements_or_a_size_mismatch(data: bytes) -> None:
    code = refusal_of(split_strings, data, tensor="x")
    assert code in {None, ErrorCode.TENSOR_SIZE_MISMATCH}
    if code is None:
        assert join_strings(split_strings(data, tensor="x"), tensor="x") == data


@given(
    st.sampled_from(list(Datatype)),
    st.lists(st.integers(-3, 2**70) | st.integers(0, 4), max_size=6).map(tuple),
    st.binary(max_size=64),
)
def test_any_tensor_is_refused_with_a_code_or_becomes_an_array(
    datatype: Datatype, shape: tuple[int, ...], data: bytes
) -> None:
    tensor = Tensor("x", datatype, shape, data)
    code = refusal_of(check_size, tensor)
    assert code in {None, ErrorCode.TENSOR_SHAPE_INVALID, ErrorCode.TENSOR_SIZE_MISMATCH}
    if code is None:
        assert to_array(tensor).shape == shape


def test_text_becomes_utf_8() -> None:
    assert to_array(from_array("x", np.array(["é", "b"]))).tolist() == ["é".encode(), b"b"]


def test_numpy_string_arrays_are_bytes_tensors() -> None:
    for dtype in (np.dtypes.StringDType(), "U3", "S3", object):
        assert to_array(from_array("x", np.array(["a", "bc"], dtype=dtype))).tolist() == [b"a", b"bc"]


def test_big_endian_arrays_become_little_endian() -> None:
    tensor = from_array("x", np.array([1], ">i4"))
    assert tensor == Tensor("x", Datatype.INT32, (1,), b"\1\0\0\0")


def test_non_contiguous_arrays_are_written_row_by_row() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    np.testing.assert_array_equal(to_array(from_array("x", array)), array)


def test_arrays_of_tensors_are_read_only() -> None:
    array = to_array(Tensor("x", Datatype.UINT8, (2,), b"ab"))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_given_datatype_converts_the_values() -> None:
    assert from_array("x", np.array([1.0]), Datatype.INT8).data == b"\1"


def test_values_that_the_given_datatype_cannot_hold_are_refused() -> None:
    assert code_of(from_array, "x", np.array(["a"]), Datatype.FP32) is ErrorCode.TENSOR_DATA_INVALID


def test_dtypes_that_kserve_lacks_are_refused() -> None:
    for dtype in ("M8[s]", "c16", np.longdouble, [("a", "f4")]):
        assert code_of(datatype_of, np.dtype(dtype), tensor="x") is ErrorCode.TENSOR_DATA_INVALID


def test_bytes_elements_that_are_no_text_are_refused() -> None:
    assert code_of(join_strings, [1.5], tensor="x") is ErrorCode.TENSOR_DATA_INVALID
    assert code_of(join_strings, ["\ud800"], tensor="x") is ErrorCode.TENSOR_DATA_INVALID


def test_unknown_datatype_names_are_refused() -> None:
    assert parse_datatype("FP32", tensor="x") is Datatype.FP32
    for name in ("FP8", "fp32", "", "TYPE_FP32"):
        assert code_of(parse_datatype, name, tensor="x") is ErrorCode.TENSOR_DATATYPE_UNKNOWN


def test_item_sizes_are_those_of_the_numpy_dtypes() -> None:
    assert Datatype.BF16.itemsize == 2
    assert Datatype.BYTES.itemsize is None
    assert Datatype.FP64.itemsize == 8


@given(st.lists(st.integers(0, 50), max_size=8))
def test_element_count_is_the_product(shape: list[int]) -> None:
    assert element_count(shape, tensor="x") == math.prod(shape)


def test_the_element_count_of_hostile_shapes_is_refused_at_once() -> None:
    # The plain product of the long ones takes minutes: this test would not end.
    for shape in ([2**62, 2], [-1], [2**63], [0, 2**62], [2**60] * 300_000, [2**60] * 300_000 + [0]):
        assert code_of(element_count, shape, tensor="x") is ErrorCode.TENSOR_SHAPE_INVALID


def test_too_few_and_too_many_bytes_are_refused_and_counted() -> None:
    with pytest.raises(InferenceError) as caught:
        check_size(Tensor("x", Datatype.FP32, (2,), b"\0" * 7))
    assert caught.value.code is ErrorCode.TENSOR_SIZE_MISMATCH
    assert caught.value.context == {"tensor": "x", "expected": 8, "actual": 7}


def test_strings_are_counted_against_the_shape() -> None:
    data = join_strings(["a", "b", "c"], tensor="x")
    check_size(Tensor("x", Datatype.BYTES, (3,), data))
    for shape in ((2,), (4,), (0,)):
        assert code_of(check_size, Tensor("x", Datatype.BYTES, shape, data)) is ErrorCode.TENSOR_SIZE_MISMATCH


def test_rows_are_the_first_dimension() -> None:
    assert Tensor("x", Datatype.INT8, (3, 2), b"").rows == 3
    assert Tensor("x", Datatype.INT8, (), b"").rows == 1
