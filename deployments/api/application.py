"""The HTTP application: every route in the order of its traffic, one shape of error, one request id per request."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trygon.deployments.api.errors import error_body, public_error
from trygon.deployments.api.health import Health
from trygon.deployments.api.open_inference.body import read_plain_body
from trygon.deployments.api.open_inference.http import OpenInferenceHttp
from trygon.deployments.api.open_inference.http_codec import HEADER_LENGTH
from trygon.deployments.api.open_inference.operations import infer_operations, other_operations
from trygon.deployments.api.openapi import openapi_document
from trygon.deployments.api.operation import Operation, routes
from trygon.deployments.api.request_id import REQUEST_ID_HEADER, chosen_request_id
from trygon.deployments.data_plane import DataPlane
from trygon.errors import ErrorCode, InferenceError

_INFER_PATH: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer").fullmatch
_HEADER_LENGTH: Final = HEADER_LENGTH.encode()
_REQUEST_ID: Final = REQUEST_ID_HEADER.encode()
_ENCODINGS: Final = {b"content-encoding", b"accept-encoding"}
_ROUTING_ERRORS: Final = {404: ErrorCode.REQUEST_ROUTE_UNKNOWN, 405: ErrorCode.REQUEST_METHOD_NOT_ALLOWED}


def http_application(
    data_plane: Callable[[], DataPlane],
    *,
    server_name: str,
    max_body_bytes: int,
    echo_request_id: bool = True,
) -> Starlette:
    """Return the application that speaks KServe v2 and answers probes.

    Call this inside the replica (`__serve_build_asgi_app__`, or a builder function for `serve.ingress`): a Starlette
    application cannot be pickled. `data_plane` is called at each request, so it may be there later than the
    application. Ray Serve adds the X-Request-ID header itself: turn `echo_request_id` off there.
    """
    http = OpenInferenceHttp(data_plane, server_name=server_name, max_body_bytes=max_body_bytes)
    infer, others = infer_operations(http), other_operations(http)
    v2 = [operation for operation in others if operation.path != "/v2"]
    root = [operation for operation in others if operation.path == "/v2"] + list(Health(data_plane).operations())
    document = openapi_document([*infer, *others, *root[1:], *_own_operations(b"", server_name)])
    # Ray Serve matches each request a second time: the routes of the traffic come first, the rest behind one mount,
    # which holds the infer routes again so that a wrong method there is 405.
    starlette = Application(
        http,
        max_body_bytes=max_body_bytes,
        echo_request_id=echo_request_id,
        routes=[
            *routes(infer),
            Mount("/v2", app=Router(routes([*infer, *v2], prefix="/v2"), redirect_slashes=False)),
            *routes([*root, *_own_operations(document, server_name)]),
        ],
        middleware=[Middleware(Boundary, echo_request_id=echo_request_id)],
        exception_handlers={HTTPException: _refused, InferenceError: _failed},
    )
    starlette.router.redirect_slashes = False
    return starlette


class Application(Starlette):
    """Starlette, with a shortcut for plain inference requests past its middleware and routing (docs/performance.md).

    A request takes it when its headers leave no choice to be made: no compression either way, no header twice.
    """

    def __init__(self, http: OpenInferenceHttp, *, max_body_bytes: int, echo_request_id: bool, **options: Any) -> None:
        super().__init__(**options)
        self._http = http
        self._max_body_bytes = max_body_bytes
        self._echo_request_id = echo_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and (target := _INFER_PATH(scope["path"])):
            headers = dict(scope["headers"])
            if len(headers) == len(scope["headers"]) and not _ENCODINGS & headers.keys():
                await self._infer(target, headers, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def _infer(self, target: re.Match[str], headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        started_ns = time.perf_counter_ns()
        status = 200
        try:
            body = await read_plain_body(receive, headers.get(b"content-length", b""), self._max_body_bytes)
            length = headers.get(_HEADER_LENGTH)
            header_length = None if length is None else length.decode("latin-1")
            answer, answer_headers = await self._http.answer(
                target[1], target[2] or "", body, header_length, started_ns
            )
        except Exception as error:  # noqa: BLE001 - the boundary: whatever failed becomes an answer
            request_id = _request_id(headers)
            known = public_error(error, request_id)
            answer = error_body(known, request_id=request_id, timestamp=datetime.now(UTC), triton=True)
            answer_headers, status = {"Content-Type": "application/json"}, known.code.http_status
        else:
            request_id = _request_id(headers) if self._echo_request_id else ""
        if self._echo_request_id:
            answer_headers[REQUEST_ID_HEADER] = request_id
        raw_headers = [(name.lower().encode(), value.encode()) for name, value in answer_headers.items()]
        raw_headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": status, "headers": raw_headers})
        await send({"type": "http.response.body", "body": answer})


class Boundary:
    """The outermost middleware: names the request, and lets nothing unforeseen through."""

    def __init__(self, app: ASGIApp, *, echo_request_id: bool) -> None:
        self._app = app
        self._echo_request_id = echo_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = chosen_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER, ""))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._echo_request_id:
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as error:
            # Once the answer has begun, only cutting the connection tells the caller that it is not whole.
            if started:
                raise
            response = _error_response(Request(scope), public_error(error, request_id))
            await response(scope, receive, send_named)


def _request_id(headers: dict[bytes, bytes]) -> str:
    return chosen_request_id(headers.get(_REQUEST_ID, b"").decode("latin-1"))


def _own_operations(document: bytes, server_name: str) -> tuple[Operation, ...]:
    start = orjson.dumps({"name": server_name, "documentation": "/openapi", "inference": "/v2"})

    async def openapi(request: Request) -> Response:
        del request
        return Response(document, media_type="application/json")

    async def home(request: Request) -> Response:
        del request
        return Response(start, media_type="application/json")

    return (
        Operation(("GET",), "/openapi", openapi, "Describe this API.", response="Document"),
        Operation(("GET",), "/", home, "Say where to go on.", response="Document"),
    )


async def _failed(request: Request, error: Exception) -> Response:
    return _error_response(request, public_error(error, request.state.request_id))


async def _refused(request: Request, error: Exception) -> Response:
    """Translate Starlette's own refusals: no such route, or not with this method."""
    if not isinstance(error, HTTPException) or error.status_code not in _ROUTING_ERRORS:
        raise error  # Boundary answers it as unforeseen
    code = _ROUTING_ERRORS[error.status_code]
    where = f"{request.method} {request.url.path}"
    message = f"no route for {where}" if error.status_code == 404 else f"{where} is not allowed"
    response = _error_response(request, InferenceError(code, message))
    response.headers.update(error.headers or {})
    return response


def _error_response(request: Request, error: InferenceError) -> Response:
    body = error_body(
        error,
        request_id=request.state.request_id,
        timestamp=datetime.now(UTC),
        triton=request.scope["path"].startswith("/v2"),
    )
    return Response(body, error.code.http_status, media_type="application/json")
