"""The standard gRPC health service (grpc.health.v1), for probes and load balancers."""

# ruff: noqa: N802  the methods bear the names of their RPCs

from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from trygon.deployments.api.errors import GRPC_STATUS
from trygon.deployments.api.open_inference.grpc_call import Call, answered
from trygon.deployments.data_plane import DataPlane
from trygon.errors import ErrorCode

SERVICE: Final = "inference.GRPCInferenceService"


class HealthRpcs:
    """Answers health checks: the whole server ("") and the inference service are one."""

    def __init__(self, data_plane: Callable[[], DataPlane]) -> None:
        self._data_plane = data_plane

    async def Check(self, request: health_pb2.HealthCheckRequest, grpc_context: Call) -> health_pb2.HealthCheckResponse:
        """Answer SERVING when every model that should be loaded is; NOT_FOUND for another service."""
        if request.service not in {"", SERVICE}:
            grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
            grpc_context.set_details("unknown service")
            return health_pb2.HealthCheckResponse()

        async def answer() -> health_pb2.HealthCheckResponse:
            states = health_pb2.HealthCheckResponse
            ready = await self._data_plane().server_ready()
            return states(status=states.SERVING if ready else states.NOT_SERVING)

        return await answered(grpc_context, health_pb2.HealthCheckResponse, answer())

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Refuse: a client that is refused takes the server for healthy. Source: gRPC's health checking protocol."""
        del request
        grpc_context.set_code(GRPC_STATUS[ErrorCode.REQUEST_FEATURE_UNSUPPORTED])
        grpc_context.set_details("Watch is not supported by this server: call Check")
        # Ray Serve wants a generator for a streaming RPC, though this one yields nothing.
        nothing: tuple[health_pb2.HealthCheckResponse, ...] = ()
        for response in nothing:
            yield response
