"""Lightning's LitServe: one LitAPI with batching."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, PlainJson
from field.peers.base import BATCH_WAIT_S, HTTP, HTTP_PORT, PROGRAMS, Launch, Peer
from field.works import Work


class LitServe(Peer):
    """One worker process behind one API process."""

    name = "litserve"
    title = "LitServe (JSON)"
    environment = "litserve"
    package = "litserve"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: PlainJson("/predict")}
    one_model = True
    max_row_bytes = 2**20

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        del scratch
        environment = {"MODEL": str(models / works[0].name), "BATCH_WAIT_S": str(BATCH_WAIT_S)}
        command = [str(python), str(PROGRAMS / "litserve_server.py"), str(HTTP_PORT)]
        return Launch(command, environment, ["/health"])
