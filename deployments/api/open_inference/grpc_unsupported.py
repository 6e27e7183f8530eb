"""The RPCs of Triton's extensions that this server lacks: each says so instead of failing as unknown."""

# ruff: noqa: N802  the methods bear the names of their RPCs

from typing import TypeVar

from trygon.deployments.api.open_inference.grpc_call import Call, fail, request_id_of
from trygon.deployments.api.proto import grpc_service_pb2 as pb
from trygon.errors import ErrorCode, InferenceError

T = TypeVar("T")


class UnsupportedRpcs:
    """Shared memory, tracing and log settings: UNIMPLEMENTED."""

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, grpc_context: Call
    ) -> pb.SystemSharedMemoryStatusResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusResponse())

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, grpc_context: Call
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterResponse())

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, grpc_context: Call
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterResponse())

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, grpc_context: Call
    ) -> pb.CudaSharedMemoryStatusResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusResponse())

    async def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest, grpc_context: Call
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "CudaSharedMemoryRegister", pb.CudaSharedMemoryRegisterResponse())

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, grpc_context: Call
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterResponse())

    async def TraceSetting(self, request: pb.TraceSettingRequest, grpc_context: Call) -> pb.TraceSettingResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "TraceSetting", pb.TraceSettingResponse())

    async def LogSettings(self, request: pb.LogSettingsRequest, grpc_context: Call) -> pb.LogSettingsResponse:
        """Refuse."""
        del request
        return _refused(grpc_context, "LogSettings", pb.LogSettingsResponse())


def _refused(call: Call, name: str, empty: T) -> T:
    error = InferenceError(ErrorCode.REQUEST_FEATURE_UNSUPPORTED, f"{name} is not supported by this server")
    fail(call, error, request_id_of(call))
    return empty
