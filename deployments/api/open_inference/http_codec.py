"""Inference over HTTP: a JSON header, with each tensor's data in it or in the binary part that follows it.

Source: the KServe v2 protocol and its binary tensor data extension.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from trygon.deployments.api.json_document import optional, parse_object, required
from trygon.deployments.api.open_inference.parameters import (
    NO_PARAMETERS,
    boolean_parameter,
    class_count,
    refuse_shared_memory,
    sort_parameters,
)
from trygon.deployments.api.open_inference.tensor_data import checked_raw, checked_shape, dump, from_json, to_json
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import InferRequest, InferResponse, RequestedOutput, Tensor, parse_datatype

HEADER_LENGTH: Final = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class HttpInference:
    """An inference request, and which of its outputs are to be answered as binary data."""

    request: InferRequest
    binary_default: bool
    binary: dict[str, bool] = field(default_factory=dict)

    def is_binary(self, output: str) -> bool:
        """Whether the output's data goes into the binary part."""
        return self.binary.get(output, self.binary_default)


def decode(model: str, version: str, body: bytes, header_length: str | None) -> HttpInference:
    """Return the request in `body`; `header_length` is the header of that name, if it was sent.

    Raises: REQUEST_…, TENSOR_….
    """
    length = _header_length(header_length, len(body))
    header = parse_object(memoryview(body)[:length] if length < len(body) else body)
    parameters = _parameters(header, "the request")
    known = sort_parameters(parameters) if parameters else NO_PARAMETERS
    binary = _BinaryPart(body, length)
    inputs = tuple(_input(item, binary) for item in required(header, "inputs", list, "the request"))
    binary.check_exhausted()
    _refuse_duplicates([tensor.name for tensor in inputs], "input")
    outputs, wanted = _outputs(optional(header, "outputs", list, "the request") or [])
    request = InferRequest(
        model=model,
        version=version,
        id=optional(header, "id", str, "the request") or "",
        inputs=inputs,
        outputs=outputs,
        parameters=known.custom,
        priority=known.priority,
        timeout_us=known.timeout_us,
    )
    return HttpInference(request, known.binary_data_output, wanted)


def encode(response: InferResponse, inference: HttpInference) -> tuple[bytes, int | None]:
    """Return the response's body, and the length of its JSON header where a binary part follows.

    Raises: TENSOR_DATA_INVALID for an output that was to be JSON and cannot.
    """
    binary_part: list[bytes | bytearray | memoryview] = []
    outputs = []
    for tensor in response.outputs:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if inference.is_binary(tensor.name):
            output["parameters"] = {"binary_data_size": len(tensor.data)}
            binary_part.append(tensor.data)
        else:
            output["data"] = to_json(tensor)
        outputs.append(output)
    header: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        header["id"] = response.id
    if response.parameters:
        header["parameters"] = response.parameters
    header["outputs"] = outputs
    text = dump(header)
    return (b"".join([text, *binary_part]), len(text)) if binary_part else (text, None)


class _BinaryPart:
    """What follows the JSON header, handed out tensor by tensor."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._position = start

    def take(self, size: int, *, tensor: str) -> bytes:
        end = self._position + size
        if end > len(self._body):
            raise InferenceError(
                ErrorCode.TENSOR_DATA_MISSING,
                f"tensor '{tensor}' has {size} bytes of binary data; only {len(self._body) - self._position} follow",
                tensor=tensor,
            )
        # The only copy of a tensor between the socket and the handle call: a view of the body cannot be pickled.
        data = self._body[self._position : end]
        self._position = end
        return data

    def check_exhausted(self) -> None:
        left = len(self._body) - self._position
        if left:
            raise InferenceError(
                ErrorCode.TENSOR_DATA_LEFT_OVER, f"{left} bytes follow the data of the last input", bytes=left
            )


def _header_length(given: str | None, size: int) -> int:
    if given is None:
        return size
    # Twenty digits are more than any body has bytes, and int() refuses thousands of them.
    length = int(given) if given.isascii() and given.isdigit() and len(given) < 20 else 0
    if not 0 < length <= size:
        raise InferenceError(
            ErrorCode.REQUEST_HEADER_LENGTH_INVALID,
            f"Inference-Header-Content-Length is '{given}'; the body has {size} bytes",
            bodyBytes=size,
        )
    return length


def _input(item: Any, binary: _BinaryPart) -> Tensor:
    where = "an input"
    document = _object(item, where)
    name = _name(document, where)
    where = f"input '{name}'"
    datatype = parse_datatype(required(document, "datatype", str, where), tensor=name)
    shape = checked_shape(required(document, "shape", list, where), tensor=name)
    parameters = _parameters(document, where)
    refuse_shared_memory(parameters, name)
    if "binary_data_size" in parameters:
        if "data" in document:
            raise InferenceError(
                ErrorCode.REQUEST_FIELD_INVALID, f"{where} has both 'data' and 'binary_data_size'", tensor=name
            )
        size = parameters["binary_data_size"]
        if type(size) is not int or size < 0:
            raise InferenceError(
                ErrorCode.REQUEST_PARAMETER_INVALID,
                f"the parameter 'binary_data_size' of {where} must be a number of bytes",
                parameter="binary_data_size",
                tensor=name,
            )
        return checked_raw(name, datatype, shape, binary.take(size, tensor=name))
    if "data" not in document:
        raise InferenceError(
            ErrorCode.TENSOR_DATA_MISSING, f"{where} has neither 'data' nor 'binary_data_size'", tensor=name
        )
    return from_json(name, datatype, shape, required(document, "data", list, where))


def _outputs(items: list[Any]) -> tuple[tuple[RequestedOutput, ...], dict[str, bool]]:
    outputs, binary = [], {}
    for item in items:
        document = _object(item, "an output")
        name = _name(document, "an output")
        parameters = _parameters(document, f"output '{name}'")
        refuse_shared_memory(parameters, name)
        outputs.append(RequestedOutput(name, class_count(parameters)))
        as_binary = boolean_parameter(parameters, "binary_data")
        if as_binary is not None:
            binary[name] = as_binary
    _refuse_duplicates([output.name for output in outputs], "output")
    return tuple(outputs), binary


def _object(item: Any, where: str) -> dict[str, Any]:
    if type(item) is not dict:
        raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, f"{where} must be an object")
    return item


def _name(document: dict[str, Any], where: str) -> str:
    name = required(document, "name", str, where)
    if not name:
        raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, f"{where} has an empty name", field="name")
    return name


def _parameters(document: dict[str, Any], where: str) -> dict[str, Any]:
    return optional(document, "parameters", dict, where) or {}


def _refuse_duplicates(names: list[str], kind: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InferenceError(ErrorCode.TENSOR_NAME_DUPLICATE, f"{kind} '{name}' is named twice", tensor=name)
        seen.add(name)
