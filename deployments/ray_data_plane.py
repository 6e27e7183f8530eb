"""The data plane over Ray Serve: it answers from the catalog, asks control for changes, and dispatches inferences."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException

from trygon.deployments.calls import call
from trygon.deployments.catalog import Catalog
from trygon.deployments.data_plane import ServedModel
from trygon.deployments.dispatch import Dispatch
from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import check_name
from trygon.models.statistics import ModelStatistics
from trygon.models.tensors import InferRequest, InferResponse
from trygon.models.versions import ModelState, VersionStatus

NOT_READY_CODES = frozenset({ErrorCode.MODEL_LOADING, ErrorCode.MODEL_UNAVAILABLE, ErrorCode.MODEL_NOT_READY})

ASIDE_CODES = frozenset({ErrorCode.MODEL_UNAVAILABLE, ErrorCode.MODEL_NOT_READY})
"""What a replica says that does not have a version, although another one has it or it has just left."""

TRIES = 3

ANSWER_S = 30.0
"""Longest wait for control, which may be restarting; a load takes as long as control lets it."""


class RayDataPlane:
    """Implements `DataPlane` (see data_plane.py) in an ingress replica."""

    def __init__(self, control: Any, catalog: Catalog, dispatch: Dispatch) -> None:
        self._control = control
        self._catalog = catalog
        self._dispatch = dispatch

    async def server_ready(self) -> bool:
        """See `DataPlane.server_ready`."""
        try:
            return not self._catalog.missing()
        except InferenceError:
            return False

    async def model_ready(self, name: str, version: str = "") -> bool:
        """See `DataPlane.model_ready`."""
        try:
            await self._catalog.resolve(name, version)
        except InferenceError as error:
            if error.code in NOT_READY_CODES:
                return False
            raise
        return True

    async def model(self, name: str, version: str = "") -> ServedModel:
        """See `DataPlane.model`."""
        status = (await self._catalog.resolve(name, version)).status
        if status.description is None:
            raise InferenceError(ErrorCode.MODEL_NOT_READY, f"model '{name}' is not ready", model=name)
        return ServedModel(name, str(status.version), self._catalog.versions(name), status.description)

    async def infer(self, request: InferRequest) -> InferResponse:
        """See `DataPlane.infer`. A version that is not where it was looked up is looked up and sent once more."""
        for _ in range(TRIES - 1):
            routed = await self._catalog.resolve(request.model, request.version)
            rows = self._catalog.check(routed)(request)
            try:
                return await self._dispatch.infer(routed, request, rows)
            except InferenceError as error:
                if error.code not in ASIDE_CODES:
                    raise
            await self._catalog.refresh()
        routed = await self._catalog.resolve(request.model, request.version)
        rows = self._catalog.check(routed)(request)
        return await self._dispatch.infer(routed, request, rows)

    async def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        """See `DataPlane.statistics`."""
        number = 0
        if name:
            routed = await self._catalog.resolve(name, version)
            number = routed.status.version if version else 0
        everything: list[ModelStatistics] = await _ask(self._control.statistics)
        return [
            item for item in everything if (not name or item.model == name) and (not number or item.version == number)
        ]

    async def index(self, *, ready_only: bool = False) -> Sequence[VersionStatus]:
        """See `DataPlane.index`."""
        rows: list[VersionStatus] = await _ask(self._control.index)
        return [row for row in rows if row.state is ModelState.READY or not ready_only]

    async def load(self, name: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """See `DataPlane.load`."""
        check_name(name)
        self._catalog.take(await _ask(self._control.load, name, config, files, timeout_s=None))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """See `DataPlane.unload`. There are no ensembles yet, so nothing depends on a model."""
        del unload_dependents
        check_name(name)
        self._catalog.take(await _ask(self._control.unload, name, timeout_s=None))


async def _ask(method: Any, *arguments: Any, timeout_s: float | None = ANSWER_S) -> Any:
    """Call a method of control.

    Raises: SYSTEM_NOT_READY when control does not answer, and what the method raises.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await call(method, *arguments)
    except (RayActorError, RayServeException, TimeoutError) as error:
        raise InferenceError(
            ErrorCode.SYSTEM_NOT_READY, "the control deployment does not answer; it may be restarting"
        ) from error
