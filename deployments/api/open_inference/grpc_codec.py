"""Inference over gRPC: messages to requests and responses to messages.

Source: the KServe v2 gRPC protocol. Answers always carry raw_output_contents, because clients read nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trygon.deployments.api.open_inference.parameters import class_count, refuse_shared_memory, sort_parameters
from trygon.deployments.api.open_inference.tensor_data import checked_raw, checked_shape, from_typed
from trygon.deployments.api.proto import grpc_service_pb2 as pb
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import (
    Datatype,
    InferRequest,
    InferResponse,
    ParameterValue,
    RequestedOutput,
    Tensor,
    parse_datatype,
)

_CONTENTS: Final = {
    Datatype.BOOL: "bool_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
"""Where typed values of a datatype are; FP16 and BF16 travel as raw bytes only."""


def decode(message: pb.ModelInferRequest) -> InferRequest:
    """Return the request in a message.

    Raises: REQUEST_…, TENSOR_….
    """
    parameters = sort_parameters(parameter_values(message.parameters))
    inputs = _inputs(message)
    _refuse_duplicates([tensor.name for tensor in inputs], "input")
    outputs = tuple(_output(output) for output in message.outputs)
    _refuse_duplicates([output.name for output in outputs], "output")
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=inputs,
        outputs=outputs,
        parameters=parameters.custom,
        priority=parameters.priority,
        timeout_us=parameters.timeout_us,
    )


def encode(response: InferResponse) -> pb.ModelInferResponse:
    """Return the message of a response."""
    message = pb.ModelInferResponse(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=tensor.name, datatype=str(tensor.datatype), shape=tensor.shape)
            for tensor in response.outputs
        ],
        raw_output_contents=[bytes(tensor.data) for tensor in response.outputs],
    )
    for name, value in response.parameters.items():
        set_parameter(message.parameters[name], value)
    return message


def parameter_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as Python values; one without a value is None."""
    return {name: _value(parameter) for name, parameter in parameters.items()}


def set_parameter(parameter: pb.InferParameter, value: ParameterValue) -> None:
    """Give a parameter its value; integers beyond int64 travel as uint64."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        if value < 2**63:
            parameter.int64_param = value
        else:
            parameter.uint64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _inputs(message: pb.ModelInferRequest) -> tuple[Tensor, ...]:
    # Each element is copied out of the message when it is read, so read it once.
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        code = ErrorCode.TENSOR_DATA_MISSING if len(raw) < len(message.inputs) else ErrorCode.TENSOR_DATA_LEFT_OVER
        raise InferenceError(
            code, f"raw_input_contents has {len(raw)} elements; the request has {len(message.inputs)} inputs"
        )
    return tuple(_input(item, raw[index] if raw else None) for index, item in enumerate(message.inputs))


def _input(item: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    name = item.name
    if not name:
        raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, "an input has an empty name", field="name")
    datatype = parse_datatype(item.datatype, tensor=name)
    shape = checked_shape(item.shape, tensor=name)
    if item.parameters:
        refuse_shared_memory(item.parameters, name)
    if raw is None:
        return from_typed(name, datatype, shape, _typed(item, datatype))
    if item.HasField("contents") and item.contents.ByteSize():
        raise InferenceError(
            ErrorCode.REQUEST_FIELD_INVALID,
            f"input '{name}' has 'contents' although the request has raw_input_contents",
            field="contents",
            tensor=name,
        )
    return checked_raw(name, datatype, shape, raw)


def _typed(item: pb.ModelInferRequest.InferInputTensor, datatype: Datatype) -> Sequence[Any]:
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID,
            f"input '{item.name}': {datatype} has no typed contents: send it in raw_input_contents",
            tensor=item.name,
        )
    for descriptor, _ in item.contents.ListFields():
        if descriptor.name != field:
            raise InferenceError(
                ErrorCode.TENSOR_DATA_INVALID,
                f"input '{item.name}' has datatype {datatype}, whose values go into {field}, not {descriptor.name}",
                tensor=item.name,
            )
    values: Sequence[Any] = getattr(item.contents, field)
    return values


def _output(item: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    if not item.name:
        raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, "an output has an empty name", field="name")
    if not item.parameters:
        return RequestedOutput(item.name)
    refuse_shared_memory(item.parameters, item.name)
    return RequestedOutput(item.name, class_count(parameter_values(item.parameters)))


def _refuse_duplicates(names: list[str], kind: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InferenceError(ErrorCode.TENSOR_NAME_DUPLICATE, f"{kind} '{name}' is named twice", tensor=name)
        seen.add(name)
