"""The limit: ONNX Runtime alone in a loop, with batches as large as the requests in flight allow."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format
from field.peers.base import HTTP, PROGRAMS, Launch, Peer
from field.works import Work


class Raw(Peer):
    """No server at all; its latencies are those of a batch."""

    name = "raw"
    title = "ONNX Runtime in a loop"
    environment = "uvicorn"
    package = "onnxruntime"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: None}

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """Return the loop's command without its numbers (see programs/raw_loop.py)."""
        del scratch
        return Launch([str(python), str(PROGRAMS / "raw_loop.py"), str(models / works[0].name)])
