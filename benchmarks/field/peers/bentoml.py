"""BentoML: one service with adaptive batching."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, PlainJson
from field.peers.base import HTTP, HTTP_PORT, PROGRAMS, Launch, Peer
from field.works import Work


class BentoML(Peer):
    """One worker."""

    name = "bentoml"
    title = "BentoML (JSON)"
    environment = "bentoml"
    package = "bentoml"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: PlainJson("/predict", batched=True)}
    one_model = True
    max_row_bytes = 2**20

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        environment = {"MODEL": str(models / works[0].name), "BENTOML_HOME": str(scratch), "BENTOML_DO_NOT_TRACK": "1"}
        command = [str(python.with_name("bentoml")), "serve", "bentoml_service:Onnx", "--host", "127.0.0.1"]
        command += ["--port", str(HTTP_PORT), "--working-dir", str(PROGRAMS)]
        return Launch(command, environment, ["/readyz"])
