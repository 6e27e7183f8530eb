"""gRPC methods as Ray Serve calls them: by bare name, with its own context, whose state it copies to the call."""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from trygon.deployments.api.open_inference.grpc import OpenInferenceGrpc
from trygon.deployments.api.proto import grpc_service_pb2 as pb

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]


class ServerCall:
    """grpc.aio's context at the moment when Ray Serve copies it."""

    def auth_context(self) -> dict[str, Any]:
        return {}

    def __init__(self, *sent: tuple[str, str]) -> None:
        self._sent = sent

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._sent

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def __getattr__(self, name: str) -> Any:
        return lambda: None


def called(*sent: tuple[str, str]) -> RayServegRPCContext:
    context = RayServegRPCContext(ServerCall(*sent))
    context.set_trailing_metadata([("request_id", "serves-own")])
    return context


@pytest.fixture
def serve_context() -> RayServegRPCContext:
    return called()


@pytest.fixture
def service(data_plane: Any) -> OpenInferenceGrpc:
    return OpenInferenceGrpc(lambda: data_plane, server_name="trygon", max_body_bytes=1024)


@pytest.mark.parametrize("name", [*METHODS, "Check", "Watch"])
def test_every_rpc_is_there_and_takes_the_context_that_serve_passes(service: OpenInferenceGrpc, name: str) -> None:
    method = getattr(service, name)
    assert "grpc_context" in inspect.signature(method).parameters
    assert inspect.isasyncgenfunction(method) == (name in {"ModelStreamInfer", "Watch"})
    assert inspect.iscoroutinefunction(method) != inspect.isasyncgenfunction(method)


async def test_an_error_is_left_in_the_context(service: OpenInferenceGrpc, serve_context: Any) -> None:
    response = await service.ModelMetadata(pb.ModelMetadataRequest(name="nosuch"), grpc_context=serve_context)
    assert response == pb.ModelMetadataResponse()
    assert serve_context.code() is grpc.StatusCode.NOT_FOUND
    assert serve_context.details() == "Request for unknown model: 'nosuch' is not found"
    assert serve_context.trailing_metadata() == [
        ("request_id", "serves-own"),
        ("trygon-error-code", "MODEL_NOT_FOUND"),
        ("x-request-id", "serves-own"),
    ]


async def test_the_callers_request_id_goes_before_serves(service: OpenInferenceGrpc) -> None:
    context = called(("x-request-id", "r1"), ("request_id", "r2"))
    await service.TraceSetting(pb.TraceSettingRequest(), grpc_context=context)
    assert ("x-request-id", "r1") in context.trailing_metadata()


async def test_an_answer_leaves_the_context_alone(service: OpenInferenceGrpc, serve_context: Any) -> None:
    request = health_pb2.HealthCheckRequest()
    response = await service.Check(request, grpc_context=serve_context)
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    assert not serve_context.code()


async def test_a_stream_is_read_from_serves_iterator(service: OpenInferenceGrpc, serve_context: Any) -> None:
    async def sent() -> AsyncIterator[pb.ModelInferRequest]:
        for index in range(3):
            tensor = pb.ModelInferRequest.InferInputTensor(name="INPUT0", datatype="FP32", shape=[1, 1])
            yield pb.ModelInferRequest(
                model_name="identity_fp32", id=str(index), inputs=[tensor], raw_input_contents=[bytes(4)]
            )

    stream = gRPCInputStream(sent())
    answers = [answer async for answer in service.ModelStreamInfer(stream, grpc_context=serve_context)]
    assert {answer.infer_response.id for answer in answers} == {"0", "1", "2"}


@pytest.mark.parametrize("rpc", ["ModelInfer", "RepositoryIndex", "ModelReady"])
async def test_a_call_from_a_peer_that_is_not_admitted_is_refused(
    data_plane: Any, serve_context: Any, rpc: str
) -> None:
    service = OpenInferenceGrpc(
        lambda: data_plane, server_name="trygon", max_body_bytes=1024, admits=lambda peer: peer != "stranger"
    )
    serve_context._peer = "stranger"  # noqa: SLF001 - what Ray Serve copies from the connection
    request = getattr(pb, f"{rpc}Request")()
    await getattr(service, rpc)(request, grpc_context=serve_context)
    assert serve_context.code() is grpc.StatusCode.PERMISSION_DENIED
    assert ("trygon-error-code", "AUTH_PEER_REFUSED") in serve_context.trailing_metadata()
