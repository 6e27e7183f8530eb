"""A data plane in memory, and both protocols served from it on free ports.

The client tests ask only for the fixtures `http_address` and `grpc_address` (HOST:PORT) and for the models below, so
whoever serves models of these names can run the same tests against another server:

- `identity_<datatype>`, such as `identity_fp32`: INPUT0 [-1,-1] of that datatype, answered as OUTPUT0; no batching.
- `double`: INPUT0 FP32 [-1,4], max_batch_size 8, OUTPUT0 is twice that; labels of OUTPUT0 are cat, dog, fish.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import grpc
import httpx
import pytest
import uvicorn
from grpc_health.v1 import health_pb2_grpc

from trygon.deployments.api.application import http_application
from trygon.deployments.api.open_inference.grpc import OpenInferenceGrpc
from trygon.deployments.api.proto import grpc_service_pb2_grpc
from trygon.deployments.data_plane import ServedModel
from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import config_from_json
from trygon.models.statistics import BatchStatistics, ModelStatistics
from trygon.models.tensors import (
    Array,
    Datatype,
    InferRequest,
    InferResponse,
    Tensor,
    TensorSpec,
    from_array,
    to_array,
)
from trygon.models.versions import ModelDescription, ModelState, VersionStatus

MAX_BODY_BYTES = 4 * 1024 * 1024
SECRET = "the password is swordfish"  # noqa: S105  it stands for what an unforeseen exception may carry


@dataclass
class InMemoryModel:
    """One model of one version: what it looks like, and what it computes."""

    name: str
    description: ModelDescription
    run: Callable[[Array], Array]
    state: ModelState = ModelState.READY
    statistics: ModelStatistics = field(init=False)

    def __post_init__(self) -> None:
        self.statistics = ModelStatistics(self.name, 1)


class InMemoryDataPlane:
    """A data plane whose models run where they are called."""

    def __init__(self) -> None:
        self.models = {model.name: model for model in _models()}
        self.requests: list[InferRequest] = []
        self.loads: list[tuple[str, str | None, dict[str, bytes]]] = []
        self.unloads: list[tuple[str, bool]] = []
        self.together = asyncio.Event()
        self.waiting = 0

    async def server_ready(self) -> bool:
        return all(model.state is ModelState.READY for model in self.models.values())

    async def model_ready(self, name: str, version: str = "") -> bool:
        return self._find(name, version).state is ModelState.READY

    async def model(self, name: str, version: str = "") -> ServedModel:
        model = self._find(name, version)
        if model.state is ModelState.LOADING:
            raise InferenceError(ErrorCode.MODEL_LOADING, f"model '{name}' is being loaded", model=name)
        return ServedModel(name, "1", ("1",), model.description)

    async def infer(self, request: InferRequest) -> InferResponse:
        served = await self.model(request.model, request.version)
        self.requests.append(request)
        tensor = _checked(request, served.description)
        if request.model == "together":
            await self._wait_for_the_others()
        model = self.models[request.model]
        output = from_array("OUTPUT0", model.run(to_array(tensor)), tensor.datatype)
        model.statistics.inference_count += tensor.rows if served.description.max_batch_size else 1
        model.statistics.execution_count += 1
        model.statistics.last_inference = 1_800_000_000_000
        model.statistics.success.add(1000)
        model.statistics.batches.setdefault(tensor.rows, BatchStatistics()).compute_infer.add(1000)
        return InferResponse(request.model, "1", request.id, (output,))

    async def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        models = [self._find(name, version)] if name else list(self.models.values())
        return [model.statistics for model in models]

    async def index(self, *, ready_only: bool = False) -> Sequence[VersionStatus]:
        return [
            VersionStatus(model.name, 1, model.state, "" if model.state is ModelState.READY else "on its way")
            for model in sorted(self.models.values(), key=lambda model: model.name)
            if model.state is ModelState.READY or not ready_only
        ]

    async def load(self, name: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        self._find(name, "")
        self.loads.append((name, config, dict(files or {})))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        self._find(name, "")
        self.unloads.append((name, unload_dependents))

    async def _wait_for_the_others(self) -> None:
        self.waiting += 1
        if self.waiting == 8:
            self.together.set()
        await self.together.wait()

    def _find(self, name: str, version: str) -> InMemoryModel:
        if name not in self.models:
            raise InferenceError(
                ErrorCode.MODEL_NOT_FOUND, f"Request for unknown model: '{name}' is not found", model=name
            )
        if version not in {"", "1"}:
            raise InferenceError(
                ErrorCode.MODEL_VERSION_NOT_FOUND, f"model '{name}' has no version '{version}'", model=name
            )
        return self.models[name]


def _checked(request: InferRequest, description: ModelDescription) -> Tensor:
    """Check a request as much as the tests of the protocols need."""
    (expected,) = description.inputs
    for tensor in request.inputs:
        if tensor.name != expected.name:
            raise InferenceError(
                ErrorCode.TENSOR_INPUT_UNKNOWN, f"unexpected input '{tensor.name}'", tensor=tensor.name
            )
    for output in request.outputs:
        if output.name != description.outputs[0].name:
            raise InferenceError(
                ErrorCode.TENSOR_OUTPUT_UNKNOWN, f"unexpected output '{output.name}'", tensor=output.name
            )
    if not request.inputs:
        raise InferenceError(ErrorCode.TENSOR_INPUT_MISSING, "input 'INPUT0' is missing", tensor="INPUT0")
    tensor = request.inputs[0]
    if tensor.datatype is not expected.datatype:
        raise InferenceError(ErrorCode.TENSOR_DATATYPE_MISMATCH, f"{tensor.datatype} is not {expected.datatype}")
    pairs = zip(tensor.shape, expected.shape, strict=False)
    if len(tensor.shape) != len(expected.shape) or any(wanted not in {-1, size} for size, wanted in pairs):
        raise InferenceError(ErrorCode.TENSOR_SHAPE_MISMATCH, f"shape {tensor.shape} is not {expected.shape}")
    return tensor


def _models() -> Iterator[InMemoryModel]:
    for datatype in Datatype:
        yield _model(f"identity_{datatype.lower()}", datatype, lambda array: array)
    labels = {"OUTPUT0": ("cat", "dog", "fish")}
    yield _model("double", Datatype.FP32, lambda array: array * 2, width=4, max_batch_size=8, labels=labels)
    yield _model("together", Datatype.FP32, lambda array: array)
    yield _model("broken", Datatype.FP32, _break)


def _break(_array: Array) -> Array:
    raise RuntimeError(SECRET)


def _model(
    name: str,
    datatype: Datatype,
    run: Callable[[Array], Array],
    *,
    width: int = -1,
    max_batch_size: int = 0,
    labels: dict[str, tuple[str, ...]] | None = None,
) -> InMemoryModel:
    config = config_from_json(
        f'{{"name": "{name}", "max_batch_size": {max_batch_size}, "platform": "onnxruntime_onnx"}}'
    )
    description = ModelDescription(
        platform="onnxruntime_onnx",
        config=config.SerializeToString(),
        max_batch_size=max_batch_size,
        inputs=(TensorSpec("INPUT0", datatype, (-1, width)),),
        outputs=(TensorSpec("OUTPUT0", datatype, (-1, width)),),
        labels=labels or {},
    )
    return InMemoryModel(name, description, run)


@pytest.fixture
def data_plane() -> InMemoryDataPlane:
    return InMemoryDataPlane()


@pytest.fixture(params=["routed", "shortcut"])
def http(data_plane: InMemoryDataPlane, request: pytest.FixtureRequest) -> httpx.AsyncClient:
    """A client of the HTTP application without a socket between: for input that no real client would send.

    Inference takes the application's shortcut only if the client leaves the answer's compression unsaid.
    """
    application = http_application(lambda: data_plane, server_name="trygon", max_body_bytes=MAX_BODY_BYTES)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://trygon")
    if request.param == "shortcut":
        del client.headers["accept-encoding"]
    return client


@pytest.fixture(scope="session")
def http_address() -> Iterator[str]:
    data_plane = InMemoryDataPlane()
    application = http_application(lambda: data_plane, server_name="trygon", max_body_bytes=MAX_BODY_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        # Connections queue at the listener until the server takes them: nothing to wait for.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def grpc_address() -> Iterator[str]:
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve_grpc(started)))
    thread.start()
    port, loop, stop = started.result(timeout=30)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _serve_grpc(started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    data_plane, stop = InMemoryDataPlane(), asyncio.Event()
    servicer = OpenInferenceGrpc(lambda: data_plane, server_name="trygon", max_body_bytes=MAX_BODY_BYTES)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    started.set_result((port, asyncio.get_running_loop(), stop))
    await stop.wait()
    await server.stop(grace=None)
