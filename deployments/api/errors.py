"""Errors on the wire: the body of every HTTP error, the gRPC status of every code, and what strangers may see."""

import logging
import math
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import grpc
import orjson

from trygon.errors import ErrorCode, InferenceError

logger = logging.getLogger(__name__)

MAX_MESSAGE_LENGTH: Final = 2000
"""Longest message in characters: messages quote names, and a hostile caller chooses names of any length."""

MAX_DETAILS_BYTES: Final = 6000
"""Longest percent-encoded gRPC status text: trailers beyond 8 KiB make the client's library fail instead."""

_MAX_CONTEXT_ITEMS: Final = 32

_STATUS_RULE: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_STATUS_EXCEPTIONS: Final = {
    # The request is well-formed: it is the server's mode, or the model's files, that forbid it.
    ErrorCode.MODEL_CONTROL_DISABLED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.MODEL_LOAD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.MODEL_FILE_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    # Libraries retry UNAVAILABLE by themselves, which cannot help against an exhausted device.
    ErrorCode.DEVICE_OUT_OF_MEMORY: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

GRPC_STATUS: Final[dict[ErrorCode, grpc.StatusCode]] = {
    code: _STATUS_EXCEPTIONS.get(code, _STATUS_RULE[code.http_status]) for code in ErrorCode
}
"""The gRPC status of every code: by HTTP status, with exceptions."""


def public_error(error: Exception, request_id: str) -> InferenceError:
    """Return what the caller may see: an InferenceError itself, or SYSTEM_INTERNAL for anything unforeseen.

    The unforeseen is logged with its traceback under the request id, which is all that the caller learns of it.
    """
    if isinstance(error, InferenceError):
        return error
    logger.error("request %s failed unexpectedly", request_id, exc_info=error)
    return InferenceError(ErrorCode.SYSTEM_INTERNAL, f"internal error; report it with request id {request_id}")


def public_message(error: InferenceError) -> str:
    """Return the message as every protocol shows it, at most MAX_MESSAGE_LENGTH characters."""
    return _clip(error.message)


def error_body(error: InferenceError, *, request_id: str, timestamp: datetime, triton: bool) -> bytes:
    """Return the JSON body of an HTTP error; `triton` adds the `error` key that KServe v2 clients read."""
    message = public_message(error)
    fields = {
        "errorCode": error.code.name,
        "message": message,
        "httpStatus": error.code.http_status,
        "timestamp": timestamp.isoformat(timespec="milliseconds"),
        "requestId": request_id,
        "context": _public(error.context),
        "documentationUrl": error.code.documentation_url,
        "retryable": error.code.retryable,
    }
    return orjson.dumps({"error": message, **fields} if triton else fields)


def status_details(error: InferenceError) -> str:
    """Return the message as a gRPC status text: HTTP's, cut where its percent-encoding would overflow the trailers."""
    message = public_message(error)
    if len(quote(message)) <= MAX_DETAILS_BYTES:
        return message
    # A character takes at most 12 bytes percent-encoded (four bytes of UTF-8).
    return message[: MAX_DETAILS_BYTES // 12 - 1] + "…"


def _clip(text: str) -> str:
    # A runtime's reason may hold bytes that are no UTF-8, which Python keeps as surrogates and JSON refuses.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_MESSAGE_LENGTH else text[: MAX_MESSAGE_LENGTH - 1] + "…"


def _public(value: Any) -> Any:
    """Return a context value as JSON that any reader can hold: sizes bounded, numbers within 64 bits."""
    if isinstance(value, str):
        return _clip(value)
    if isinstance(value, dict):
        return {_clip(str(key)): _public(item) for key, item in list(value.items())[:_MAX_CONTEXT_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_public(item) for item in list(value)[:_MAX_CONTEXT_ITEMS]]
    return value if _fits_json(value) else _clip(str(value))


def _fits_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return value is None
