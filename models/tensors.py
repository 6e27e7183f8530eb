"""Tensors as they travel: KServe datatypes, and raw bytes whose size was checked against datatype and shape.

A `Tensor` holds little-endian, row-major bytes (KServe's binary tensor data extension; each BYTES element is a u32
length and that many bytes). Only a runner turns them into arrays: `to_array` and `from_array`.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from trygon.errors import ErrorCode, InferenceError

Array: TypeAlias = npt.NDArray[Any]
Buffer: TypeAlias = bytes | bytearray | memoryview
ParameterValue: TypeAlias = bool | int | float | str

MAX_DIMENSION: Final = 2**63 - 1
"""Largest dimension: shapes are int64 on the wire."""
MAX_ELEMENTS: Final = 2**60 - 1
"""Largest product of the dimensions above 0: arrays count bytes in int64, and elements take up to 8 of them."""


NO_PARAMETERS: Final[Mapping[str, ParameterValue]] = {}
"""The parameters of a request or response that has none. Nobody writes to it."""


class Datatype(StrEnum):
    """The KServe v2 tensor datatypes. Source: the Open Inference Protocol, "Tensor Data Types"."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @property
    def itemsize(self) -> int | None:
        """Bytes per element; None for BYTES, whose elements differ in size."""
        return _ITEM_SIZES[self]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy dtype; object (of `bytes`) for BYTES."""
        return _NUMPY_DTYPES[self]


_NUMPY_DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    Datatype.BOOL: np.dtype("?"),
    Datatype.UINT8: np.dtype("u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BF16: np.dtype(ml_dtypes.bfloat16),
    Datatype.BYTES: np.dtype(object),
}
_ITEM_SIZES: Final[dict[Datatype, int | None]] = {
    datatype: None if datatype is Datatype.BYTES else dtype.itemsize for datatype, dtype in _NUMPY_DTYPES.items()
}
_DATATYPES: Final = {dtype: datatype for datatype, dtype in _NUMPY_DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says of one of its tensors; `shape` includes the batch dimension, -1 stands for any size."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False


class Tensor(NamedTuple):
    """One tensor of a request or response: raw bytes that have been checked against datatype and shape.

    A named tuple, as all that travels with each request: it is made and pickled in a third of a dataclass's time.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: Buffer

    @property
    def rows(self) -> int:
        """The first dimension, which is the batch of a model that batches; 1 for a scalar."""
        return self.shape[0] if self.shape else 1


class RequestedOutput(NamedTuple):
    """An output that the caller asks for; with `classes` above 0, as the top classes instead of the tensor.

    Source of `classes`: Triton's classification extension (parameter `classification`).
    """

    name: str
    classes: int = 0


class InferRequest(NamedTuple):
    """One inference request, free of any protocol.

    `version` is empty when the caller left the choice to the server, `outputs` is empty when all are wanted.
    `parameters` are the caller's own; what Trygon understands among them (`priority`, `timeout` in microseconds) has
    been checked by the protocol layer.
    """

    model: str
    inputs: tuple[Tensor, ...]
    version: str = ""
    id: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    priority: int = 0
    timeout_us: int = 0


class InferResponse(NamedTuple):
    """One inference response, free of any protocol; `outputs` come in the order in which they were asked for.

    `queue_ns` is the time in the model's queue, `compute_ns` that of the execution which the request was part of.
    """

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    queue_ns: int = 0
    compute_ns: int = 0


def parse_datatype(name: str, *, tensor: str) -> Datatype:
    """Return the datatype called `name`.

    Raises: TENSOR_DATATYPE_UNKNOWN, naming `tensor`.
    """
    try:
        return Datatype(name)
    except ValueError:
        raise InferenceError(
            ErrorCode.TENSOR_DATATYPE_UNKNOWN, f"tensor '{tensor}' has unknown datatype '{name}'", tensor=tensor
        ) from None


def element_count(shape: Sequence[int], *, tensor: str) -> int:
    """Return the product of `shape` (1 for a scalar).

    Raises: TENSOR_SHAPE_INVALID if a dimension is negative, or it or the product is beyond what arrays can have.
    """
    count = 1
    empty = False
    for dimension in shape:
        # Stops growing beyond the limit: the product of a shape as long as a request would take minutes.
        count = min(count * (dimension or 1), MAX_ELEMENTS + 1)
        empty = empty or dimension == 0
        if not 0 <= dimension <= MAX_DIMENSION:
            raise InferenceError(
                ErrorCode.TENSOR_SHAPE_INVALID,
                f"tensor '{tensor}' has dimension {dimension}; it must be between 0 and 2^63-1",
                tensor=tensor,
            )
    if count > MAX_ELEMENTS:
        raise InferenceError(
            ErrorCode.TENSOR_SHAPE_INVALID, f"tensor '{tensor}' has a shape of more than 2^60-1 elements", tensor=tensor
        )
    return 0 if empty else count


def check_size(tensor: Tensor) -> None:
    """Check that a tensor's bytes are exactly what its datatype and shape ask for.

    Raises: TENSOR_SHAPE_INVALID, TENSOR_SIZE_MISMATCH.
    """
    count = element_count(tensor.shape, tensor=tensor.name)
    size = len(tensor.data)
    itemsize = tensor.datatype.itemsize
    if itemsize is None:
        found = _count_strings(tensor.data, limit=count, tensor=tensor.name)
        if found != count:
            raise InferenceError(
                ErrorCode.TENSOR_SIZE_MISMATCH,
                f"tensor '{tensor.name}' holds {found} BYTES elements; its shape {list(tensor.shape)} asks for {count}",
                tensor=tensor.name,
                expected=count,
                actual=found,
            )
    elif size != count * itemsize:
        raise InferenceError(
            ErrorCode.TENSOR_SIZE_MISMATCH,
            f"tensor '{tensor.name}' has {size} bytes; datatype {tensor.datatype} and shape {list(tensor.shape)} ask"
            f" for {count * itemsize}",
            tensor=tensor.name,
            expected=count * itemsize,
            actual=size,
        )


def to_array(tensor: Tensor) -> Array:
    """Return a read-only array over the tensor's bytes (no copy; BYTES become an object array of `bytes`)."""
    if tensor.datatype is Datatype.BYTES:
        array = np.empty(math.prod(tensor.shape), dtype=object)
        array[:] = split_strings(tensor.data, tensor=tensor.name)
        return array.reshape(tensor.shape)
    return np.frombuffer(tensor.data, dtype=tensor.datatype.numpy).reshape(tensor.shape)


def from_array(name: str, array: Array, datatype: Datatype | None = None) -> Tensor:
    """Return a tensor with a copy of the array's values; arrays of `str` or `bytes` become BYTES.

    Raises: TENSOR_DATA_INVALID for a dtype without a KServe datatype, strings that are not text or bytes, and values
    that cannot be cast to `datatype`.
    """
    datatype = datatype or datatype_of(array.dtype, tensor=name)
    if datatype is Datatype.BYTES:
        return Tensor(name, datatype, array.shape, join_strings(array.reshape(-1).tolist(), tensor=name))
    try:
        values = array.astype(datatype.numpy, copy=False)
    except (TypeError, ValueError) as error:
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID, f"tensor '{name}' has values that are no {datatype}: {error}", tensor=name
        ) from None
    return Tensor(name, datatype, array.shape, values.tobytes())


def datatype_of(dtype: np.dtype[Any], *, tensor: str) -> Datatype:
    """Return the KServe datatype of a numpy dtype; objects and strings are BYTES.

    Raises: TENSOR_DATA_INVALID if there is none.
    """
    if dtype.kind in "OSUT":
        return Datatype.BYTES
    found = _DATATYPES.get(dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype)
    if found is None:
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID, f"tensor '{tensor}' has dtype {dtype}, which KServe lacks", tensor=tensor
        )
    return found


def join_strings(elements: Iterable[Any], *, tensor: str) -> bytes:
    """Serialise BYTES elements: each a u32 length (little-endian) and that many bytes. Text becomes UTF-8.

    Raises: TENSOR_DATA_INVALID for anything else than text and bytes, and for text with half surrogates.
    """
    parts: list[bytes] = []
    for element in elements:
        if isinstance(element, str):
            raw = _encode(element, tensor)
        elif isinstance(element, bytes | bytearray | np.bytes_):
            raw = bytes(element)
        else:
            raise InferenceError(
                ErrorCode.TENSOR_DATA_INVALID,
                f"tensor '{tensor}' has a BYTES element of type {type(element).__name__}; send text or bytes",
                tensor=tensor,
            )
        parts.append(struct.pack("<I", len(raw)))
        parts.append(raw)
    return b"".join(parts)


def _encode(text: str, tensor: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID, f"tensor '{tensor}' has text that UTF-8 cannot encode", tensor=tensor
        ) from None


def split_strings(data: Buffer, *, tensor: str) -> list[bytes]:
    """Return the elements of serialised BYTES data.

    Raises: TENSOR_SIZE_MISMATCH if an element ends beyond the data.
    """
    elements: list[bytes] = []
    view, position, size = memoryview(data), 0, len(data)
    while position < size:
        position, start = _next_string(view, position, size, tensor), position + 4
        elements.append(bytes(view[start:position]))
    return elements


def _count_strings(data: Buffer, *, limit: int, tensor: str) -> int:
    """Count serialised BYTES elements, and stop one past `limit`."""
    view, position, size, count = memoryview(data), 0, len(data), 0
    while position < size and count <= limit:
        position = _next_string(view, position, size, tensor)
        count += 1
    return count


def _next_string(view: memoryview, position: int, size: int, tensor: str) -> int:
    """Return where the BYTES element at `position` ends."""
    end = position + 4
    if end <= size:
        end += int.from_bytes(view[position:end], "little")
    if end > size:
        raise InferenceError(
            ErrorCode.TENSOR_SIZE_MISMATCH,
            f"tensor '{tensor}' has a BYTES element at byte {position} that ends beyond its {size} bytes",
            tensor=tensor,
        )
    return end
