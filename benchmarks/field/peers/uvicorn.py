"""Bare uvicorn, starlette and ONNX Runtime in one process: what a small hand-written server gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, V2Binary
from field.peers.base import HTTP, HTTP_PORT, PROGRAMS, Launch, Peer, model_list
from field.works import Work


class Uvicorn(Peer):
    """No batching."""

    name = "uvicorn"
    title = "uvicorn + ONNX Runtime"
    environment = "uvicorn"
    package = "uvicorn"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Binary()}
    constant = True

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        del scratch
        command = [str(python), str(PROGRAMS / "uvicorn_server.py"), str(HTTP_PORT)]
        return Launch(command, {"MODELS": model_list(works, models)}, ["/v2/health/live"])
