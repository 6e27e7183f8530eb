"""Operations: what one HTTP route does, written once for the router and for the OpenAPI document."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trygon.errors import ErrorCode

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: where it is, what answers, and what the OpenAPI document says of it.

    `request` and `response` name schemas of the document; an empty `response` stands for an empty body. `errors` are
    the codes that the route may answer with beyond those that every route has. An operation that only says that the
    server lacks a feature is not `documented`.
    """

    methods: tuple[str, ...]
    path: str
    endpoint: Endpoint
    summary: str
    errors: tuple[ErrorCode, ...] = ()
    request: str = ""
    response: str = ""
    documented: bool = True

    def route(self, prefix: str = "") -> Route:
        """Return the Starlette route, as seen from below a mount at `prefix`."""
        return Route(self.path.removeprefix(prefix), self.endpoint, methods=list(self.methods))


def routes(operations: Iterable[Operation], prefix: str = "") -> list[Route]:
    """Return the Starlette routes of operations, as seen from below a mount at `prefix`."""
    return [operation.route(prefix) for operation in operations]
