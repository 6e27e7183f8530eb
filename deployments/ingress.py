"""The ingress deployment: the HTTP application, the gRPC methods and the handle methods, nothing else."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from trygon.deployments.api.application import http_application
from trygon.deployments.api.handle import portable_error, to_arrays, to_request
from trygon.deployments.api.open_inference.grpc import OpenInferenceGrpc
from trygon.deployments.catalog import Catalog
from trygon.deployments.data_plane import DataPlane
from trygon.deployments.dispatch import Dispatch
from trygon.deployments.ports import is_local_peer
from trygon.deployments.ray_data_plane import RayDataPlane
from trygon.errors import InferenceError
from trygon.models.tensors import Array, ParameterValue
from trygon.settings import IngressSettings


class Ingress(OpenInferenceGrpc):
    """One replica. `control` and `runners` are handles of deployments of the same application."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits constructors
        self,
        control: DeploymentHandle,
        runners: Mapping[str, DeploymentHandle],
        *,
        settings: IngressSettings,
        server_name: str,
    ) -> None:
        self._catalog = Catalog(control)
        dispatch = Dispatch(runners, request_timeout_s=settings.request_timeout_s)
        self._plane = RayDataPlane(control, self._catalog, dispatch)
        OpenInferenceGrpc.__init__(
            self,
            self._plane_now,
            server_name=server_name,
            max_body_bytes=settings.max_body_bytes,
            admits=is_local_peer if settings.local_only else None,
        )
        await self._catalog.refresh()
        self._following = asyncio.create_task(self._catalog.follow())

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the HTTP application; Ray Serve calls it once, after the constructor."""
        return http_application(
            self._plane_now,
            server_name=self._server_name,
            max_body_bytes=self._max_body_bytes,
            echo_request_id=False,  # Ray Serve adds the header itself
        )

    def _plane_now(self) -> DataPlane:
        return self._plane

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        *,
        parameters: Mapping[str, ParameterValue] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> dict[str, Array]:
        """Run one inference for another Ray application.

        Args:
            model: Name of the model.
            inputs: Arrays by input name; a model that batches wants the batch as first dimension.
            version: A version, or None for the one that the model's policy chooses.
            outputs: Names of the outputs that are wanted, or None for all.
            parameters: Parameters for the model.
            timeout_s: Longest wait in seconds; the server's own limit holds as well.
            request_id: The caller's id for this request.

        Returns:
            Arrays by output name.

        Raises:
            LookupError: no such model or version.
            ValueError: the inputs do not fit the model.
            TimeoutError: the time was over.
            RuntimeError: everything else. Each has attributes `code`, `http_status`, `retryable`, `context`.
        """
        try:
            request = to_request(
                model,
                inputs,
                version=version,
                outputs=outputs,
                parameters=parameters,
                timeout_s=timeout_s,
                request_id=request_id or str(uuid.uuid4()),
            )
            return to_arrays(await self._plane.infer(request))
        except InferenceError as error:
            raise portable_error(error) from None
