"""The OpenAPI document: generated from the table of operations, so that it describes what is there."""

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from trygon import __version__
from trygon.deployments.api.operation import Operation
from trygon.deployments.api.schemas import SCHEMAS
from trygon.errors import ErrorCode

COMMON_ERRORS: Final = (
    ErrorCode.REQUEST_METHOD_NOT_ALLOWED,
    ErrorCode.SYSTEM_INTERNAL,
    ErrorCode.SYSTEM_NOT_READY,
    ErrorCode.SYSTEM_SHUTTING_DOWN,
)
"""Codes that every route may answer with."""

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


def openapi_document(operations: Iterable[Operation]) -> bytes:
    """Return the OpenAPI 3.1 document of the documented operations, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        if operation.documented:
            for method in operation.methods:
                paths.setdefault(operation.path, {})[method.lower()] = _described(operation, method)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Trygon",
                "version": __version__,
                "summary": "KServe v2 inference with Triton's extensions.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "components": {"schemas": SCHEMAS},
        }
    )


def _described(operation: Operation, method: str) -> dict[str, Any]:
    words = re.findall(r"\w+", operation.path)
    described: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *words]),
        "summary": operation.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(operation.path)
        ],
        "responses": {"200": _success(operation), **_failures((*operation.errors, *COMMON_ERRORS))},
    }
    if operation.request:
        binary = operation.request == "InferRequest"
        described["requestBody"] = {"content": _content(operation.request, binary=binary)}
        if binary:
            described["parameters"].append({"name": _HEADER_LENGTH, "in": "header", "schema": {"type": "integer"}})
    return described


def _success(operation: Operation) -> dict[str, Any]:
    if not operation.response:
        return {"description": "Done."}
    return {
        "description": "The answer.",
        "content": _content(operation.response, binary=operation.response == "InferResponse"),
    }


def _content(schema: str, *, binary: bool) -> dict[str, Any]:
    """Describe a body; a binary one is the same JSON with the tensors' bytes behind it."""
    content: dict[str, Any] = {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return content | {_BINARY: {}} if binary else content


def _failures(codes: Iterable[ErrorCode]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(code.http_status, []).append(code.name)
    return {
        str(status): {
            "description": ", ".join(by_status[status]),
            "content": {
                _JSON: {
                    "schema": {
                        "allOf": [{"$ref": "#/components/schemas/Error"}],
                        "properties": {"errorCode": {"enum": by_status[status]}},
                    }
                }
            },
        }
        for status in sorted(by_status)
    }
