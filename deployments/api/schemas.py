"""The JSON schemas of requests and answers, as the OpenAPI document shows them."""

from typing import Any, Final

from trygon.errors import ErrorCode
from trygon.models.statistics import DURATIONS
from trygon.models.tensors import Datatype
from trygon.models.versions import ModelState

_STRING: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_BOOLEAN: Final = {"type": "boolean"}
_SHAPE: Final = {"type": "array", "items": _INTEGER}
_DATATYPE: Final = {"type": "string", "enum": [str(datatype) for datatype in Datatype]}
_PARAMETERS: Final = {"type": "object", "additionalProperties": {"type": ["boolean", "number", "string"]}}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _parameters(properties: dict[str, Any]) -> dict[str, Any]:
    return _object({"parameters": {"type": "object", "properties": properties}})


_TENSOR: Final = _object(
    {"name": _STRING, "shape": _SHAPE, "datatype": _DATATYPE, "parameters": _PARAMETERS, "data": {"type": "array"}},
    "name",
    "shape",
    "datatype",
)
_TENSOR_METADATA: Final = _object(
    {"name": _STRING, "datatype": _DATATYPE, "shape": _SHAPE}, "name", "datatype", "shape"
)
_DURATION: Final = _object({"count": _INTEGER, "ns": _INTEGER}, "count", "ns")
_INDEX_ENTRY: Final = _object(
    {
        "name": _STRING,
        "version": _STRING,
        "state": {"type": "string", "enum": [str(state) for state in ModelState]},
        "reason": _STRING,
    },
    "name",
)

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "InferRequest": _object(
        {
            "id": _STRING,
            "parameters": _PARAMETERS,
            "inputs": _array(_TENSOR),
            "outputs": _array(_object({"name": _STRING, "parameters": _PARAMETERS}, "name")),
        },
        "inputs",
    ),
    "InferResponse": _object(
        {
            "model_name": _STRING,
            "model_version": _STRING,
            "id": _STRING,
            "parameters": _PARAMETERS,
            "outputs": _array(_TENSOR),
        },
        "model_name",
        "model_version",
        "outputs",
    ),
    "ServerMetadata": _object(
        {"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}, "name", "version", "extensions"
    ),
    "ServerLive": _object({"live": _BOOLEAN}, "live"),
    "ServerReady": _object({"ready": _BOOLEAN}, "ready"),
    "ModelReady": _object({"name": _STRING, "ready": _BOOLEAN}, "name", "ready"),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_TENSOR_METADATA),
            "outputs": _array(_TENSOR_METADATA),
        },
        "name",
        "versions",
        "platform",
        "inputs",
        "outputs",
    ),
    "ModelConfig": {"type": "object", "description": "Triton's ModelConfig message as JSON."},
    "Statistics": _object(
        {
            "model_stats": _array(
                _object(
                    {
                        "name": _STRING,
                        "version": _STRING,
                        "last_inference": _INTEGER,
                        "inference_count": _INTEGER,
                        "execution_count": _INTEGER,
                        "inference_stats": _object(dict.fromkeys(DURATIONS, _DURATION), *DURATIONS),
                        "batch_stats": _array({"type": "object"}),
                    },
                    "name",
                    "version",
                )
            )
        },
        "model_stats",
    ),
    "RepositoryIndexRequest": _object({"ready": _BOOLEAN}),
    "RepositoryIndex": _array(_INDEX_ENTRY),
    "LoadRequest": _parameters({"config": _STRING, "file:<path>": {"type": "string", "contentEncoding": "base64"}}),
    "UnloadRequest": _parameters({"unload_dependents": _BOOLEAN}),
    "Health": _object(
        {"status": {"type": "string", "enum": ["UP", "DOWN"]}, "missing": _array(_INDEX_ENTRY)}, "status", "missing"
    ),
    "Document": {"type": "object"},
    "Error": _object(
        {
            "error": {"type": "string", "description": "The message again, on the routes below /v2."},
            "errorCode": {"type": "string", "enum": list(ErrorCode.__members__)},
            "message": _STRING,
            "httpStatus": _INTEGER,
            "timestamp": {"type": "string", "format": "date-time"},
            "requestId": _STRING,
            "context": {"type": "object"},
            "documentationUrl": {"type": "string", "format": "uri-reference"},
            "retryable": _BOOLEAN,
        },
        *("errorCode", "message", "httpStatus", "timestamp", "requestId", "context", "documentationUrl", "retryable"),
    ),
}
"""Schemas by the names under which operations refer to them."""
