"""Triton Inference Server: the binary of the nvidia-pytriton wheel, whose only backend is Python."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from field.environments import PYTHON_VERSION, site_packages
from field.payload import Format, V2Binary, V2Json
from field.peers.base import (
    GRPC,
    GRPC_PORT,
    HTTP,
    HTTP_PORT,
    JSON,
    PROGRAMS,
    STREAM,
    Launch,
    Peer,
    v2_ready,
)
from field.works import Work


class Triton(Peer):
    """tritonserver with ONNX Runtime in its python backend, dynamic batching with no delay (its default)."""

    name = "triton"
    title = "Triton (python backend)"
    environment = "triton"
    package = "nvidia-pytriton"
    formats: ClassVar[dict[str, Format | None]] = {HTTP: V2Binary(), JSON: V2Json(), GRPC: None, STREAM: None}
    constant = True
    poisson = True

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """See `Peer.launch`."""
        del python
        packages = site_packages(self.environment)
        server = packages / "pytriton" / "tritonserver"
        stubs = server / "python_backend_stubs" / PYTHON_VERSION
        backends = scratch / "backends"
        shutil.copytree(server / "backends", backends)
        shutil.copytree(stubs, backends / "python", dirs_exist_ok=True)
        repository = scratch / "repository"
        for work in works:
            _write_model(work, models / work.name, repository / work.name)
        libraries = [str(packages / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
        command = [str(server / "bin" / "tritonserver"), "--model-repository", str(repository)]
        command += ["--backend-directory", str(backends), "--http-address", "127.0.0.1"]
        command += ["--http-port", str(HTTP_PORT), "--grpc-port", str(GRPC_PORT), "--grpc-address", "127.0.0.1"]
        command += ["--allow-metrics", "false", "--log-info", "false", "--disable-auto-complete-config"]
        # The default of 64 MiB of shared memory for a stub holds no batch of large tensors.
        command += ["--backend-config", f"python,shm-default-byte-size={2**28}"]
        environment = {
            "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
            "PYTHONPATH": str(packages),
            "PATH": f"{packages.parents[2] / 'bin'}:{os.environ['PATH']}",
        }
        return Launch(command, environment, v2_ready(works))


def _write_model(work: Work, source: Path, folder: Path) -> None:
    about: dict[str, Any] = json.loads((source / "about.json").read_text())
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copyfile(PROGRAMS / "triton_model.py", version / "model.py")
    dims = work.shape if work.max_batch_size else (-1, *work.shape)
    lines = [
        f'name: "{work.name}" backend: "python" max_batch_size: {work.max_batch_size}',
        f'input {{ name: "{about["input"]}" data_type: TYPE_FP32 dims: {list(dims)} }}',
        "instance_group { kind: KIND_CPU count: 1 }",
        f'parameters {{ key: "folder" value {{ string_value: "{source}" }} }}',
        f'parameters {{ key: "programs" value {{ string_value: "{PROGRAMS}" }} }}',
    ]
    ranks = {"pitch": [[-1, -1]] * 3}.get(work.name, [[-1]] if work.max_batch_size else [[-1, -1]])
    for name, rank in zip(about["outputs"], ranks, strict=True):
        lines.append(f'output {{ name: "{name}" data_type: TYPE_FP32 dims: {rank} }}')
    if work.max_batch_size:
        lines.append("dynamic_batching { }")
    (folder / "config.pbtxt").write_text("\n".join(lines))
