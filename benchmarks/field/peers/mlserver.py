"""Seldon's MLServer with a custom runtime and adaptive batching, inference in the server's own process."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.payload import Format, V2Json
from field.peers.base import (
    BATCH_WAIT_S,
    GRPC,
    GRPC_PORT,
    HTTP,
    HTTP_PORT,
    PROGRAMS,
    SPARE_PORT,
    Launch,
    Peer,
    v2_ready,
)
from field.works import Work


class MLServer(Peer):
    """`parallel_workers` 0: with a worker process it was slower at every load that was tried."""

    name = "mlserver"
    title = "MLServer (JSON)"
    environment = "mlserver"
    package = "mlserver"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Json(), GRPC: None}
    max_row_bytes = 2**20

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1"}
        settings |= {"http_port": HTTP_PORT, "grpc_port": GRPC_PORT, "metrics_port": SPARE_PORT}
        (scratch / "settings.json").write_text(json.dumps(settings))
        for work in works:
            folder = scratch / work.name
            folder.mkdir()
            model = {"name": work.name, "implementation": "mlserver_model.OnnxModel"}
            model["parameters"] = {"uri": str(models / work.name)}  # type: ignore[assignment]
            model |= {"max_batch_size": work.max_batch_size, "max_batch_time": BATCH_WAIT_S}  # type: ignore[dict-item]
            (folder / "model-settings.json").write_text(json.dumps(model))
        command = [str(python.with_name("mlserver")), "start", str(scratch)]
        return Launch(command, {"PYTHONPATH": str(PROGRAMS)}, v2_ready(works))
