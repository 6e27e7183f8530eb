"""KServe's Python SDK, its usual way to serve a custom model; it does not batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, V2Binary
from field.peers.base import GRPC, GRPC_PORT, HTTP, HTTP_PORT, PROGRAMS, Launch, Peer, model_list, v2_ready
from field.works import Work


class KServe(Peer):
    """One worker."""

    name = "kserve"
    title = "KServe SDK"
    environment = "kserve"
    package = "kserve"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Binary(), GRPC: None}

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        del scratch
        command = [str(python), str(PROGRAMS / "kserve_server.py")]
        command += ["--http_port", str(HTTP_PORT), "--grpc_port", str(GRPC_PORT)]
        return Launch(command, {"MODELS": model_list(works, models)}, v2_ready(works))
