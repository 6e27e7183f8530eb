"""The KServe v2 service over gRPC, and the standard health service: translate, ask the data plane, translate back.

The same object serves a grpc.aio server and Ray Serve, which calls methods by their bare RPC names and passes its own
context as `grpc_context`.
"""

# ruff: noqa: N802  the methods bear the names of their RPCs

from collections.abc import AsyncIterator, Callable
from typing import Final

from trygon.deployments.api.errors import public_error, public_message
from trygon.deployments.api.open_inference import classification, grpc_codec
from trygon.deployments.api.open_inference.blocking import run_sized
from trygon.deployments.api.open_inference.grpc_call import Call, answered, request_id_of
from trygon.deployments.api.open_inference.grpc_health import HealthRpcs
from trygon.deployments.api.open_inference.grpc_unsupported import UnsupportedRpcs
from trygon.deployments.api.open_inference.parameters import FINAL_RESPONSE
from trygon.deployments.api.open_inference.repository import index_entry, load_options, unload_dependents
from trygon.deployments.api.open_inference.server import EXTENSIONS, VERSION
from trygon.deployments.api.open_inference.statistics import statistics_message
from trygon.deployments.api.open_inference.stream import answer_concurrently
from trygon.deployments.api.proto import grpc_service_pb2 as pb
from trygon.deployments.data_plane import DataPlane
from trygon.errors import ErrorCode, InferenceError
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import TensorSpec

ERROR_CODE_PARAMETER: Final = "trygon_error_code"
"""The error's code within a stream, as a parameter of the answer: there is no trailing metadata per message."""
MAX_STREAM_IN_FLIGHT: Final = 256
"""Requests of one stream that are under way at once; further ones wait in the connection's flow control."""


class OpenInferenceGrpc(HealthRpcs, UnsupportedRpcs):
    """One method per RPC; `data_plane` is resolved at each call.

    `admits` is asked whether a call may come from its peer, such as "ipv4:127.0.0.1:4711".
    """

    def __init__(
        self,
        data_plane: Callable[[], DataPlane],
        *,
        server_name: str,
        max_body_bytes: int,
        admits: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__(data_plane)
        self._server_name = server_name
        self._max_body_bytes = max_body_bytes
        self._admits = admits

    async def ServerLive(self, request: pb.ServerLiveRequest, grpc_context: Call) -> pb.ServerLiveResponse:
        """Tell that the server answers."""
        del request, grpc_context
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, grpc_context: Call) -> pb.ServerReadyResponse:
        """Tell whether every model that should be loaded is."""

        async def answer() -> pb.ServerReadyResponse:
            return pb.ServerReadyResponse(ready=await self._admitted(grpc_context).server_ready())

        del request
        return await answered(grpc_context, pb.ServerReadyResponse, answer())

    async def ModelReady(self, request: pb.ModelReadyRequest, grpc_context: Call) -> pb.ModelReadyResponse:
        """Tell whether a model version can answer now."""

        async def answer() -> pb.ModelReadyResponse:
            return pb.ModelReadyResponse(
                ready=await self._admitted(grpc_context).model_ready(request.name, request.version)
            )

        return await answered(grpc_context, pb.ModelReadyResponse, answer())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, grpc_context: Call) -> pb.ServerMetadataResponse:
        """Tell the server's name, version and extensions."""
        del request, grpc_context
        return pb.ServerMetadataResponse(name=self._server_name, version=VERSION, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, grpc_context: Call) -> pb.ModelMetadataResponse:
        """Tell a model version's tensors."""

        async def answer() -> pb.ModelMetadataResponse:
            model = await self._admitted(grpc_context).model(request.name, request.version)
            return pb.ModelMetadataResponse(
                name=model.name,
                versions=model.versions,
                platform=model.description.platform,
                inputs=[_tensor_metadata(tensor) for tensor in model.description.inputs],
                outputs=[_tensor_metadata(tensor) for tensor in model.description.outputs],
            )

        return await answered(grpc_context, pb.ModelMetadataResponse, answer())

    async def ModelConfig(self, request: pb.ModelConfigRequest, grpc_context: Call) -> pb.ModelConfigResponse:
        """Tell a model version's configuration, completed from its file."""

        async def answer() -> pb.ModelConfigResponse:
            model = await self._admitted(grpc_context).model(request.name, request.version)
            return pb.ModelConfigResponse(config=ModelConfig.FromString(model.description.config))

        return await answered(grpc_context, pb.ModelConfigResponse, answer())

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, grpc_context: Call
    ) -> pb.ModelStatisticsResponse:
        """Tell the statistics of a version, of all versions of a model, or of all models."""

        async def answer() -> pb.ModelStatisticsResponse:
            found = await self._admitted(grpc_context).statistics(request.name, request.version)
            return pb.ModelStatisticsResponse(model_stats=[statistics_message(statistics) for statistics in found])

        return await answered(grpc_context, pb.ModelStatisticsResponse, answer())

    async def ModelInfer(self, request: pb.ModelInferRequest, grpc_context: Call) -> pb.ModelInferResponse:
        """Run a model on the request's tensors."""
        return await answered(grpc_context, pb.ModelInferResponse, self._infer(request, grpc_context))

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], grpc_context: Call
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Run models on a stream of requests; answers come as they are ready, errors as `error_message`."""
        request_id = request_id_of(grpc_context)

        async def answer(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
            try:
                response = pb.ModelStreamInferResponse(infer_response=await self._infer(request, grpc_context))
            except Exception as error:  # noqa: BLE001  one request's failure must not end its neighbours' stream
                response = _stream_error(request, public_error(error, request_id))
            # Each answer here is a request's only one. Source: Triton's documentation of decoupled models.
            response.infer_response.parameters[FINAL_RESPONSE].bool_param = True
            return response

        async for response in answer_concurrently(request_iterator, answer, limit=MAX_STREAM_IN_FLIGHT):
            yield response

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, grpc_context: Call
    ) -> pb.RepositoryIndexResponse:
        """List the versions of all models, with their states."""

        async def answer() -> pb.RepositoryIndexResponse:
            found = await self._admitted(grpc_context).index(ready_only=request.ready)
            entries = [pb.RepositoryIndexResponse.ModelIndex(**index_entry(status)) for status in found]
            return pb.RepositoryIndexResponse(models=entries)

        return await answered(grpc_context, pb.RepositoryIndexResponse, answer())

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, grpc_context: Call
    ) -> pb.RepositoryModelLoadResponse:
        """Load or reload a model, and wait until it is ready."""

        async def answer() -> pb.RepositoryModelLoadResponse:
            options = load_options(grpc_codec.parameter_values(request.parameters))
            await self._admitted(grpc_context).load(request.model_name, config=options.config, files=options.files)
            return pb.RepositoryModelLoadResponse()

        return await answered(grpc_context, pb.RepositoryModelLoadResponse, answer())

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, grpc_context: Call
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload all versions of a model."""

        async def answer() -> pb.RepositoryModelUnloadResponse:
            dependents = unload_dependents(grpc_codec.parameter_values(request.parameters))
            await self._admitted(grpc_context).unload(request.model_name, unload_dependents=dependents)
            return pb.RepositoryModelUnloadResponse()

        return await answered(grpc_context, pb.RepositoryModelUnloadResponse, answer())

    def _admitted(self, call: Call) -> DataPlane:
        """Return the data plane for a call. Raises: AUTH_PEER_REFUSED if its peer may not ask."""
        if self._admits and not self._admits(call.peer()):
            raise InferenceError(ErrorCode.AUTH_PEER_REFUSED, "this server takes gRPC calls from its own machine only")
        return self._data_plane()

    async def _infer(self, request: pb.ModelInferRequest, grpc_context: Call) -> pb.ModelInferResponse:
        size = request.ByteSize()
        if size > self._max_body_bytes:
            raise InferenceError(
                ErrorCode.REQUEST_BODY_TOO_LARGE,
                f"the message is larger than {self._max_body_bytes} bytes",
                limitBytes=self._max_body_bytes,
            )
        decoded = await run_sized(size, grpc_codec.decode, request)
        return grpc_codec.encode(await classification.infer(self._admitted(grpc_context), decoded))


def _stream_error(request: pb.ModelInferRequest, error: InferenceError) -> pb.ModelStreamInferResponse:
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    response.parameters[ERROR_CODE_PARAMETER].string_param = error.code.name
    return pb.ModelStreamInferResponse(error_message=public_message(error), infer_response=response)


def _tensor_metadata(tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=str(tensor.datatype), shape=tensor.shape)
