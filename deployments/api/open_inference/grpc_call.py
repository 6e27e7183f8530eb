"""One gRPC call: what a method may do with its context, and how a failure reaches the caller.

A failure is set on the context and an empty message returned. Raising would work too, but Ray Serve then logs a
traceback for every bad request and drops the trailing metadata.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import grpc

from trygon.deployments.api.errors import GRPC_STATUS, public_error, status_details
from trygon.deployments.api.request_id import REQUEST_ID_HEADER, is_request_id, new_request_id
from trygon.errors import InferenceError

T = TypeVar("T")

ERROR_CODE: Final = "trygon-error-code"
"""Trailing metadata that holds the error's code."""


_REQUEST_ID_KEYS: Final = frozenset({REQUEST_ID_HEADER, "request_id"})
"""Ours, which is HTTP's, and Ray Serve's, which it also sets as trailing metadata before it calls a method."""


class Call(Protocol):
    """What grpc.aio's context and Ray Serve's have in common."""

    def invocation_metadata(self) -> Sequence[tuple[str, Any]] | None:
        """Return the metadata that the caller sent."""
        ...

    def trailing_metadata(self) -> Sequence[tuple[str, Any]] | None:
        """Return the metadata that end the call as far as they are set."""
        ...

    def peer(self) -> str:
        """Return who is at the other end, such as "ipv4:127.0.0.1:4711"."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the call's status."""
        ...

    def set_details(self, details: str) -> None:
        """Set the status text."""
        ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        """Set the metadata that ends the call."""
        ...


async def answered(call: Call, empty: Callable[[], T], answer: Awaitable[T]) -> T:
    """Return the answer; if it fails, set the call's error and return an empty message, which nobody receives."""
    try:
        return await answer
    except Exception as error:  # noqa: BLE001  this is the boundary: whatever failed becomes a status
        request_id = request_id_of(call)
        fail(call, public_error(error, request_id), request_id)
        return empty()


def fail(call: Call, error: InferenceError, request_id: str) -> None:
    """Set the call's status: HTTP's message as its text, code and request id as trailing metadata."""
    call.set_code(GRPC_STATUS[error.code])
    call.set_details(status_details(error))
    call.set_trailing_metadata([(ERROR_CODE, error.code.name), (REQUEST_ID_HEADER, request_id)])


def request_id_of(call: Call) -> str:
    """Return the caller's request id where it is sane, else the one that Ray Serve logs, else a new one."""
    for metadata in (call.invocation_metadata(), call.trailing_metadata()):
        for key, value in metadata or ():
            if key in _REQUEST_ID_KEYS and isinstance(value, str) and is_request_id(value):
                return value
    return new_request_id()
