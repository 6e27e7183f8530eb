"""Tensors that ONNX Runtime and numpy do not share: text, and BF16."""

import ctypes
from typing import Any, Final

import numpy as np
import onnxruntime

from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import Array, Datatype

_ONNX_BFLOAT16: Final = 16
"""TensorProto.DataType.BFLOAT16 in onnx.proto."""


def decode_strings(array: Array, *, tensor: str) -> Array:
    """Return an object array of `str` for one of UTF-8 `bytes`: ONNX Runtime would feed the text "b'…'" otherwise.

    Raises: TENSOR_DATA_INVALID for bytes that are not UTF-8, and for anything else than bytes and text.
    """
    return _map(array, lambda element: _decode(element, tensor))


def encode_strings(array: Array) -> Array:
    """Return an object array of UTF-8 `bytes` for one of `str`."""
    return _map(array, str.encode)


def to_bfloat16(array: Array, *, tensor: str) -> Any:
    """Return an OrtValue with the values of a BF16 array.

    Raises: RUNNER_INPUT_REJECTED for another dtype.
    """
    if array.dtype != Datatype.BF16.numpy:
        raise InferenceError(
            ErrorCode.RUNNER_INPUT_REJECTED,
            f"input '{tensor}' has dtype {array.dtype}; the model takes BF16",
            tensor=tensor,
        )
    bits = np.require(array, requirements="C").view(np.uint16).reshape(array.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def from_bfloat16(value: Any) -> Array:
    """Return the values of a BF16 OrtValue in the CPU's memory; numpy lacks the type, so bytes are read."""
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(raw, dtype=Datatype.BF16.numpy).reshape(value.shape())


def _map(array: Array, convert: Any) -> Array:
    converted = np.empty(array.shape, dtype=object)
    converted.reshape(-1)[:] = [convert(element) for element in array.reshape(-1).tolist()]
    return converted


def _decode(element: Any, tensor: str) -> str:
    if isinstance(element, str):
        return element
    try:
        return bytes.decode(element)
    except (UnicodeDecodeError, TypeError) as error:
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID,
            f"input '{tensor}' has an element that is not UTF-8 text, which is all that strings in ONNX can hold",
            tensor=tensor,
        ) from error
