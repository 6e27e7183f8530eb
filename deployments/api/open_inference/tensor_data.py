"""Tensor values in JSON and in typed protobuf fields, to and from the raw bytes that Trygon passes on."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from trygon.deployments.api.json_document import JSON_TYPES
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import (
    Array,
    Datatype,
    Tensor,
    check_size,
    element_count,
    join_strings,
    split_strings,
)

MAX_RANK: Final = 64
"""Most dimensions of a tensor: numpy's limit, and it keeps the product of a hostile shape cheap to compute."""

_FLOATS: Final = {Datatype.FP32, Datatype.FP64}
_NOT_JSON: Final = {Datatype.FP16, Datatype.BF16}


def checked_shape(shape: Sequence[Any], *, tensor: str) -> tuple[int, ...]:
    """Return a shape whose dimensions and product lie within int64.

    Raises: TENSOR_SHAPE_INVALID.
    """
    if len(shape) > MAX_RANK:
        raise InferenceError(
            ErrorCode.TENSOR_SHAPE_INVALID,
            f"tensor '{tensor}' has {len(shape)} dimensions; the most is {MAX_RANK}",
            tensor=tensor,
        )
    if not all(type(dimension) is int for dimension in shape):
        raise InferenceError(
            ErrorCode.TENSOR_SHAPE_INVALID, f"tensor '{tensor}' has a dimension that is no integer", tensor=tensor
        )
    element_count(shape, tensor=tensor)
    return tuple(shape)


def checked_raw(name: str, datatype: Datatype, shape: tuple[int, ...], data: bytes) -> Tensor:
    """Return a tensor of raw bytes that are what its datatype and shape ask for.

    Raises: TENSOR_SIZE_MISMATCH, and TENSOR_DATA_INVALID for a BOOL that is neither 0 nor 1.
    """
    tensor = Tensor(name, datatype, shape, data)
    check_size(tensor)
    if datatype is Datatype.BOOL and data and int(np.frombuffer(data, np.uint8).max()) > 1:
        raise _invalid(name, "BOOL bytes must be 0 or 1")
    return tensor


def from_json(name: str, datatype: Datatype, shape: tuple[int, ...], data: list[Any]) -> Tensor:
    """Return a tensor from JSON values in row-major order, flat or nested.

    The number of values is checked before anything of the shape's size exists.
    Raises: TENSOR_SIZE_MISMATCH, and TENSOR_DATA_INVALID for values that the datatype cannot hold or JSON cannot carry.
    """
    if datatype in _NOT_JSON:
        raise _invalid(name, f"{datatype} cannot travel as JSON: send it as binary data")
    values = _flat(data, tensor=name)
    _check_count(name, shape, len(values))
    if datatype is Datatype.BYTES:
        _check_types(name, datatype, values, {str})
        return Tensor(name, datatype, shape, join_strings(values, tensor=name))
    if datatype in _FLOATS:
        _check_types(name, datatype, values, {int, float})
        return Tensor(name, datatype, shape, _finite(name, datatype, values))
    _check_types(name, datatype, values, {bool} if datatype is Datatype.BOOL else {int})
    return from_typed(name, datatype, shape, values)


def from_typed(name: str, datatype: Datatype, shape: tuple[int, ...], values: Sequence[Any]) -> Tensor:
    """Return a tensor from numbers or byte strings whose Python types fit the datatype.

    Raises: TENSOR_SIZE_MISMATCH, and TENSOR_DATA_INVALID for an integer out of range.
    """
    _check_count(name, shape, len(values))
    if datatype is Datatype.BYTES:
        return Tensor(name, datatype, shape, join_strings(values, tensor=name))
    try:
        array = np.array(values, dtype=datatype.numpy)
    except OverflowError:
        raise _invalid(name, f"a value does not fit into {datatype}") from None
    return Tensor(name, datatype, shape, array.tobytes())


def to_json(tensor: Tensor) -> Array | list[str]:
    """Return a tensor's values as what the JSON writer takes: a flat array of numbers, or strings.

    Raises: TENSOR_DATA_INVALID for what JSON cannot carry: FP16, BF16, NaN, infinity, strings that are not UTF-8.
    """
    if tensor.datatype in _NOT_JSON:
        raise _invalid(tensor.name, f"{tensor.datatype} cannot travel as JSON: ask for binary_data")
    if tensor.datatype is Datatype.BYTES:
        try:
            return [element.decode() for element in split_strings(tensor.data, tensor=tensor.name)]
        except UnicodeDecodeError:
            raise _invalid(tensor.name, "its strings are not UTF-8: ask for binary_data") from None
    array: Array = np.frombuffer(tensor.data, dtype=tensor.datatype.numpy)
    if tensor.datatype in _FLOATS and not np.isfinite(array).all():
        raise _invalid(tensor.name, "it holds NaN or infinity, which JSON cannot carry: ask for binary_data")
    return array


def dump(document: dict[str, Any]) -> bytes:
    """Return a document that may hold numpy arrays as JSON."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _flat(data: list[Any], *, tensor: str) -> list[Any]:
    """Flatten evenly nested lists, level by level; the document's depth is bounded."""
    values = data
    while list in (kinds := set(map(type, values))):
        if len(kinds) > 1 or len(set(map(len, values))) > 1:
            raise _invalid(tensor, "its nested arrays differ in depth or length")
        values = list(chain.from_iterable(values))
    return values


def _check_count(name: str, shape: tuple[int, ...], found: int) -> None:
    expected = element_count(shape, tensor=name)
    if found != expected:
        raise InferenceError(
            ErrorCode.TENSOR_SIZE_MISMATCH,
            f"tensor '{name}' has {found} values; its shape {list(shape)} asks for {expected}",
            tensor=name,
            expected=expected,
            actual=found,
        )


def _check_types(name: str, datatype: Datatype, values: list[Any], allowed: set[type]) -> None:
    for kind in set(map(type, values)) - allowed:
        raise _invalid(name, f"{JSON_TYPES[kind]} is no value of {datatype}")


def _finite(name: str, datatype: Datatype, values: list[Any]) -> bytes:
    # JSON holds finite numbers only, so an infinity can only come from the narrower datatype.
    with np.errstate(over="ignore"):
        array = np.array(values, dtype=np.float64).astype(datatype.numpy)
    if not np.isfinite(array).all():
        raise _invalid(name, f"a value does not fit into {datatype}")
    return array.tobytes()


def _invalid(tensor: str, reason: str) -> InferenceError:
    return InferenceError(ErrorCode.TENSOR_DATA_INVALID, f"tensor '{tensor}': {reason}", tensor=tensor)
