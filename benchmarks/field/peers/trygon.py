"""Trygon, from this working tree, with and without its cohort hold."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from field.models import LIBRARY
from field.payload import Format, V2Binary, V2Json
from field.peers.base import GRPC, GRPC_PORT, HTTP, HTTP_PORT, JSON, STREAM, Launch, Peer, v2_ready
from field.works import Work


class Trygon(Peer):
    """The product."""

    name = "trygon"
    title = "Trygon"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Binary(), JSON: V2Json(), GRPC: None, STREAM: None}
    constant = True
    poisson = True

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        repository = scratch / "repository"
        for work in works:
            _write_model(work, models / work.name, repository / work.name)
        command = [str(python.with_name("trygon")), "serve", "--model-repository", str(repository)]
        command += ["--http-port", str(HTTP_PORT), "--grpc-port", str(GRPC_PORT), "--data-dir", str(scratch / "data")]
        return Launch(command, self.settings(), v2_ready(works))

    def settings(self) -> dict[str, str]:
        """Return environment variables for the server."""
        return {}


class TrygonGreedy(Trygon):
    """Trygon that fills batches greedily, as Triton does: what its cohort hold is compared with."""

    name = "trygon-greedy"
    title = "Trygon, no cohort hold"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Binary()}
    constant = False

    def settings(self) -> dict[str, str]:
        """See `Trygon.settings`."""
        return {"TRYGON_RUNNERS": json.dumps({"onnx-cpu": {"cohort_hold": False}})}

    def cannot(self, work: Work) -> str:
        """See `Peer.cannot`."""
        return "" if work.name == "device" else "the hold is for devices whose batches cost as much as single rows"


def _write_model(work: Work, source: Path, folder: Path) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    os.link(source / "model.onnx", version / "model.onnx")
    config = f"""backend: "onnxruntime"
max_batch_size: {work.max_batch_size}
instance_group {{ kind: KIND_CPU count: 1 }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""
    if work.max_batch_size:
        config += "dynamic_batching { }\n"
    if (source / LIBRARY).exists():
        os.link(source / LIBRARY, folder / LIBRARY)
        config += f'model_operations {{ op_library_filename: "{LIBRARY}" }}\n'
    (folder / "config.pbtxt").write_text(config)
