"""The KServe v2 routes over HTTP: translate, ask the data plane, translate back."""

import time
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from trygon.deployments.api.json_document import optional, parse_object
from trygon.deployments.api.open_inference import classification, http_codec
from trygon.deployments.api.open_inference.blocking import run_sized
from trygon.deployments.api.open_inference.body import accepted_encoding, compress, read_body
from trygon.deployments.api.open_inference.repository import index_entry, load_options, unload_dependents
from trygon.deployments.api.open_inference.server import EXTENSIONS, VERSION
from trygon.deployments.api.open_inference.statistics import statistics_json
from trygon.deployments.data_plane import DataPlane
from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import config_to_json
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import InferResponse, TensorSpec


class JsonResponse(Response):
    """A body of JSON, written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the document as bytes."""
        return orjson.dumps(content)


class OpenInferenceHttp:
    """One endpoint per route of the protocol; `data_plane` is resolved at each request."""

    def __init__(self, data_plane: Callable[[], DataPlane], *, server_name: str, max_body_bytes: int) -> None:
        self._data_plane = data_plane
        self._server_name = server_name
        self._max_body_bytes = max_body_bytes

    async def infer(self, request: Request) -> Response:
        """Run a model on the request's tensors."""
        started_ns = time.perf_counter_ns()
        body = await read_body(request, self._max_body_bytes)
        header_length = request.headers.get(http_codec.HEADER_LENGTH)
        answer, headers = await self.answer(*_model(request), body, header_length, started_ns)
        encoding = accepted_encoding(request.headers.get("accept-encoding"))
        compressed = await compress(answer, encoding) if encoding else None
        if encoding and compressed:
            headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        return Response(compressed or answer, headers=headers)

    async def answer(
        self, model: str, version: str, body: bytes, header_length: str | None, started_ns: int
    ) -> tuple[bytes, dict[str, str]]:
        """Return the answer's body and headers for an inference request's body.

        `header_length` is the header of that name, `started_ns` the performance counter when the request began.
        """
        inference = await run_sized(len(body), http_codec.decode, model, version, body, header_length)
        response = await classification.infer(self._data_plane(), inference.request)
        size = sum(len(tensor.data) for tensor in response.outputs)
        answer, answer_header_length = await run_sized(size, http_codec.encode, response, inference)
        headers = {"Server-Timing": _server_timing(response, time.perf_counter_ns() - started_ns)}
        if answer_header_length is None:
            headers["Content-Type"] = "application/json"
        else:
            headers["Content-Type"] = "application/octet-stream"
            headers["Inference-Header-Content-Length"] = str(answer_header_length)
        return answer, headers

    async def server_metadata(self, request: Request) -> Response:
        """Tell the server's name, version and extensions."""
        del request
        return JsonResponse({"name": self._server_name, "version": VERSION, "extensions": EXTENSIONS})

    async def server_live(self, request: Request) -> Response:
        """Tell that the server answers."""
        del request
        return JsonResponse({"live": True})

    async def server_ready(self, request: Request) -> Response:
        """Tell whether every model that should be loaded is: 200 or 503."""
        del request
        ready = await self._data_plane().server_ready()
        return JsonResponse({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """Tell whether a model version can answer now: 200 or 503."""
        name, version = _model(request)
        ready = await self._data_plane().model_ready(name, version)
        return JsonResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """Tell a model version's tensors."""
        model = await self._data_plane().model(*_model(request))
        return JsonResponse(
            {
                "name": model.name,
                "versions": model.versions,
                "platform": model.description.platform,
                "inputs": [_tensor_metadata(tensor) for tensor in model.description.inputs],
                "outputs": [_tensor_metadata(tensor) for tensor in model.description.outputs],
            }
        )

    async def model_config(self, request: Request) -> Response:
        """Tell a model version's configuration, completed from its file."""
        model = await self._data_plane().model(*_model(request))
        return JsonResponse(config_to_json(ModelConfig.FromString(model.description.config)))

    async def statistics(self, request: Request) -> Response:
        """Tell the statistics of a version, of all versions of a model, or of all models."""
        found = await self._data_plane().statistics(*_model(request))
        return JsonResponse({"model_stats": [statistics_json(statistics) for statistics in found]})

    async def repository_index(self, request: Request) -> Response:
        """List the versions of all models, with their states."""
        document = await self._document(request)
        ready_only = optional(document, "ready", bool, "the request") or False
        found = await self._data_plane().index(ready_only=ready_only)
        return JsonResponse([index_entry(status) for status in found])

    async def repository_load(self, request: Request) -> Response:
        """Load or reload a model, and wait until it is ready."""
        parameters = optional(await self._document(request), "parameters", dict, "the request") or {}
        options = load_options(parameters)
        await self._data_plane().load(request.path_params["model"], config=options.config, files=options.files)
        return Response()

    async def repository_unload(self, request: Request) -> Response:
        """Unload all versions of a model."""
        parameters = optional(await self._document(request), "parameters", dict, "the request") or {}
        dependents = unload_dependents(parameters)
        await self._data_plane().unload(request.path_params["model"], unload_dependents=dependents)
        return Response()

    async def _document(self, request: Request) -> dict[str, Any]:
        """Return the request's JSON; an empty body stands for an empty object."""
        body = await read_body(request, self._max_body_bytes)
        return parse_object(body) if body else {}


def _server_timing(response: InferResponse, total_ns: int) -> str:
    """Return milliseconds in the queue, in the model's execution, and in this server. Source: W3C Server Timing."""
    return (
        f"queue;dur={response.queue_ns / 1e6:.3f}, compute;dur={response.compute_ns / 1e6:.3f},"
        f" total;dur={total_ns / 1e6:.3f}"
    )


async def unsupported(request: Request) -> Response:
    """Say that the server lacks the extension that the route belongs to."""
    raise InferenceError(
        ErrorCode.REQUEST_FEATURE_UNSUPPORTED, f"{request.method} {request.url.path} is not supported by this server"
    )


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def _tensor_metadata(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
