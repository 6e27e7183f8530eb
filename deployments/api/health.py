"""The health routes for probes and people: alive, ready, and which models are missing."""

from collections.abc import Callable
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from trygon.deployments.api.open_inference.repository import index_entry
from trygon.deployments.api.operation import Operation
from trygon.deployments.data_plane import DataPlane
from trygon.models.versions import ModelState, VersionStatus

UNLOADED: Final = "unloaded"
"""The reason, in Triton's index, of a version that is not loaded because nobody wants it."""

_MISSING: Final = {ModelState.UNKNOWN, ModelState.UNAVAILABLE, ModelState.LOADING}


class Health:
    """Answers probes; `data_plane` is resolved at each request."""

    def __init__(self, data_plane: Callable[[], DataPlane]) -> None:
        self._data_plane = data_plane

    def operations(self) -> tuple[Operation, ...]:
        """Return the routes."""
        return (
            Operation(("GET",), "/q/health/live", self.live, "Is the server alive?", response="Health"),
            Operation(("GET",), "/q/health/ready", self.ready, "Is every model loaded?", response="Health"),
        )

    async def live(self, request: Request) -> Response:
        """Tell that the server answers."""
        del request
        return _answer(up=True, missing=[])

    async def ready(self, request: Request) -> Response:
        """Tell whether every model that should be loaded has a live replica, and which have none: 200 or 503."""
        del request
        data_plane = self._data_plane()
        if await data_plane.server_ready():
            return _answer(up=True, missing=[])
        return _answer(up=False, missing=[status for status in await data_plane.index() if _is_missing(status)])


def _is_missing(status: VersionStatus) -> bool:
    return status.state in _MISSING and status.reason != UNLOADED


def _answer(*, up: bool, missing: list[VersionStatus]) -> Response:
    document = {"status": "UP" if up else "DOWN", "missing": [index_entry(status) for status in missing]}
    return Response(orjson.dumps(document), 200 if up else 503, media_type="application/json")
