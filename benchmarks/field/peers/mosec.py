"""mosec: a Rust front with one Python worker and batching."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, RawBytes
from field.peers.base import BATCH_WAIT_S, HTTP, HTTP_PORT, PROGRAMS, Launch, Peer
from field.works import Work


class Mosec(Peer):
    """Bytes in, bytes out."""

    name = "mosec"
    title = "mosec (raw bytes)"
    environment = "mosec"
    package = "mosec"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: RawBytes("/inference")}
    one_model = True

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        environment = {"MODEL": str(models / works[0].name), "BATCH_WAIT_S": str(BATCH_WAIT_S)}
        command = [str(python), str(PROGRAMS / "mosec_server.py"), "--address", "127.0.0.1", "--port", str(HTTP_PORT)]
        command += ["--timeout", "60000", "--max-request-size", str(2**26), "--path", str(scratch / "mosec")]
        return Launch(command, environment, ["/"])
