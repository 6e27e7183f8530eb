"""The model configuration as text and as JSON, and what its names mean: datatypes, backends, frameworks, file names."""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import shorten
from trygon.models.proto.model_config_pb2 import DataType, ModelConfig
from trygon.models.tensors import Datatype

CONFIG_FILENAME: Final = "config.pbtxt"
MAX_CONFIG_BYTES: Final = 1024 * 1024
"""Largest configuration that is read; those of real models take a few kilobytes."""
MAX_CONFIG_DEPTH: Final = 32
"""Deepest nesting of a configuration in JSON; ModelConfig itself needs less than half of it."""

BACKEND_PLATFORMS: Final[Mapping[str, str]] = {
    "onnxruntime": "onnxruntime_onnx",
    "tensorflow": "tensorflow_savedmodel",
    "litert": "litert_tflite",
}
"""Backends of this server, and the platform that each runs."""
FRAMEWORKS: Final[Mapping[str, str]] = {"onnxruntime": "onnx", "tensorflow": "tensorflow", "litert": "litert"}
"""Backends, and the framework in the names of their runner deployments."""
MODEL_FILENAMES: Final[Mapping[str, str]] = {
    "onnxruntime": "model.onnx",
    "tensorflow": "model.savedmodel",
    "litert": "model.tflite",
}
"""Backends, and the file or folder that each looks for in a version's folder unless told otherwise."""

_BACKENDS: Final[Mapping[str, str]] = {
    "onnxruntime": "onnxruntime",
    "onnx": "onnxruntime",
    "tensorflow": "tensorflow",
    "litert": "litert",
    "tflite": "litert",
}
_PLATFORMS: Final[Mapping[str, str]] = {
    **{platform: backend for backend, platform in BACKEND_PLATFORMS.items()},
    "tflite": "litert",
    "litert": "litert",
}
_ABSENT: Final = frozenset(
    {"python", "ensemble", "pytorch", "tensorrt", "openvino", "dali", "fil", "vllm", "tensorrtllm", "identity"}
    | {"tensorflow_graphdef", "tensorrt_plan", "pytorch_libtorch"}
)
"""Backends and platforms of Triton that this server does not have: known names, so the error can say so."""

_DATATYPES: Final[Mapping[int, Datatype]] = {
    DataType.Value("TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype}"): datatype
    for datatype in Datatype
}
_DATA_TYPES: Final[Mapping[Datatype, int]] = {datatype: number for number, datatype in _DATATYPES.items()}


def parse_config(text: str, *, source: str) -> ModelConfig:
    """Return the configuration that `text`, a config.pbtxt, holds.

    Raises: MODEL_CONFIG_INVALID, with `source`, line and column of the fault.
    """
    _check_length(text, source)
    config = ModelConfig()
    try:
        text_format.Parse(text, config)
    except (text_format.ParseError, ValueError) as error:  # ValueError: text that is no Unicode
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID, f"{source}:{shorten(str(error), 300)}", source=source
        ) from error
    return config


def config_from_json(text: str) -> ModelConfig:
    """Return the configuration that `text`, the `config` parameter of Triton's load API, holds.

    Field names may be those of the protocol buffer or their camel-case forms.

    Raises: MODEL_CONFIG_INVALID.
    """
    _check_length(text, "config")
    config = ModelConfig()
    if not text.lstrip().startswith("{"):
        raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, "config: the configuration is no JSON object")
    try:
        json_format.Parse(text, config, max_recursion_depth=MAX_CONFIG_DEPTH)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        reason = shorten(str(error).split("\n", maxsplit=1)[0], 300)
        raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"config: {reason}") from error
    return config


def config_to_json(config: ModelConfig) -> dict[str, Any]:
    """Return the configuration as Triton's `GET /v2/models/NAME/config` answers it.

    Names are those of the protocol buffer, int64 are numbers, enums are names, and everything without presence is
    there with its default. Source: Triton's model configuration extension.
    """
    return _to_json(config)


def config_to_text(config: ModelConfig) -> str:
    """Return the configuration as a config.pbtxt."""
    text: str = text_format.MessageToString(config)
    return text


def backend_of(config: ModelConfig) -> str:
    """Return the backend that `backend`, `platform` or `default_model_filename` ask for.

    Raises: MODEL_BACKEND_UNKNOWN if none of them tells or the name means nothing here, MODEL_CONFIG_UNSUPPORTED for
    a backend of Triton that this server lacks, MODEL_CONFIG_INVALID if backend and platform contradict each other.
    """
    by_backend = _backend_called(config.backend, _BACKENDS, "backend", config.name) if config.backend else ""
    by_platform = _backend_called(config.platform, _PLATFORMS, "platform", config.name) if config.platform else ""
    if by_backend and by_platform and by_backend != by_platform:
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID,
            f"model '{config.name}': backend '{config.backend}' does not run platform '{config.platform}'",
            model=config.name,
        )
    found = by_backend or by_platform or _backend_of_file(config.default_model_filename)
    if not found:
        raise InferenceError(
            ErrorCode.MODEL_BACKEND_UNKNOWN,
            f"model '{config.name}': neither backend nor platform is set",
            model=config.name,
        )
    return found


def model_filename(config: ModelConfig) -> str:
    """Return the name of the model's file or folder in a version's folder.

    Raises: what `backend_of` raises.
    """
    return config.default_model_filename or MODEL_FILENAMES[backend_of(config)]


def datatype_of_config(data_type: int, *, tensor: str) -> Datatype:
    """Return the KServe datatype of a `DataType` (TYPE_STRING is BYTES).

    Raises: MODEL_CONFIG_INVALID for TYPE_INVALID and unknown numbers, naming `tensor`.
    """
    found = _DATATYPES.get(data_type)
    if found is None:
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID, f"tensor '{tensor}' has data_type {data_type}, which is none", tensor=tensor
        )
    return found


def data_type_of(datatype: Datatype) -> int:
    """Return the `DataType` of a KServe datatype (BYTES is TYPE_STRING)."""
    return _DATA_TYPES[datatype]


def _check_length(text: str, source: str) -> None:
    if len(text) > MAX_CONFIG_BYTES:
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID,
            f"{source}: the configuration is longer than {MAX_CONFIG_BYTES} bytes",
            source=source,
            limit=MAX_CONFIG_BYTES,
        )


def _backend_called(name: str, known: Mapping[str, str], field: str, model: str) -> str:
    if name in known:
        return known[name]
    code = ErrorCode.MODEL_CONFIG_UNSUPPORTED if name in _ABSENT else ErrorCode.MODEL_BACKEND_UNKNOWN
    raise InferenceError(
        code, f"model '{model}': this server has no {field} '{shorten(name)}'", model=model, field=field
    )


def _backend_of_file(filename: str) -> str:
    suffixes = {name.rpartition(".")[2]: backend for backend, name in MODEL_FILENAMES.items()}
    return suffixes.get(filename.rpartition(".")[2], "")


def _to_json(message: Message) -> dict[str, Any]:
    return {
        field.name: _field_to_json(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field_to_json(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        of_entry = entry.fields_by_name["value"]
        return {str(key): _value_to_json(value[key], of_entry) for key in sorted(value)}
    if field.is_repeated:
        return [_value_to_json(element, field) for element in value]
    return _value_to_json(value, field)


def _value_to_json(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return _to_json(value)
    if field.enum_type is not None:
        name = field.enum_type.values_by_number.get(value)
        return name.name if name else value
    return value
