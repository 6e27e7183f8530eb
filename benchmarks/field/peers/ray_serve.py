"""Ray Serve as it is installed, without the switches that Trygon sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, V2Binary
from field.peers.base import BATCH_WAIT_S, HTTP, HTTP_PORT, PROGRAMS, Launch, Peer, model_list
from field.works import Work


class RayServe(Peer):
    """Ingress deployment → runner deployment with `@serve.batch`."""

    name = "ray-serve"
    title = "Ray Serve, stock"
    package = "ray"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Binary()}
    constant = True

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        environment = {"MODELS": model_list(works, models), "BATCH_WAIT_S": str(BATCH_WAIT_S)}
        environment |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        command = [str(python), str(PROGRAMS / "ray_server.py"), str(HTTP_PORT), str(scratch / "ray")]
        return Launch(command, environment, ["/v2/health/live"])
