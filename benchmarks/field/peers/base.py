"""What every peer says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from field.payload import Format
from field.works import Work

HTTP = "http"
JSON = "json"
GRPC = "grpc"
STREAM = "grpc stream"
TRANSPORTS = (HTTP, JSON, GRPC, STREAM)
BATCH_WAIT_S = 0.002
"""How long batchers that wait for company wait: with less they batch little, with more a lone caller suffers."""
PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
HTTP_PORT = 19080
GRPC_PORT = 19081
SPARE_PORT = 19082


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server: command, environment, what answers when it is ready, and where."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    ready: Sequence[str] = ()
    http_port: int = HTTP_PORT
    grpc_port: int = GRPC_PORT


class Peer:
    """One server.

    `environment` names its virtual environment ("" is Trygon's) and `package` what it is in there. `formats` says what
    it is sent on which transport (None where payload.py makes the message), `one_model` that a process serves one
    model, `constant` that it answers v2/health/live, `poisson` that it gets the open loop too. `max_row_bytes` is the
    largest row that is worth sending.
    """

    name: str
    title: str
    environment: str = ""
    package: str = ""
    formats: ClassVar[dict[str, Format | None]]
    one_model: bool = False
    constant: bool = False
    poisson: bool = False
    max_row_bytes: int = 2**30

    def launch(self, works: Sequence[Work], models: Path, scratch: Path, python: Path) -> Launch:
        """Return how to start the server for `works`.

        `models` holds a folder per work, `scratch` is an empty folder with a short path, `python` the environment's.
        """
        raise NotImplementedError

    def cannot(self, work: Work) -> str:
        """Return why this peer is not measured with a work, or nothing."""
        if work.row_bytes > self.max_row_bytes:
            return "its natural format is JSON, which is no way to send 16 MiB"
        return ""


def model_list(works: Sequence[Work], models: Path) -> str:
    """Return the variable MODELS of the programs."""
    return ",".join(f"{work.name}={models / work.name}" for work in works)


def v2_ready(works: Sequence[Work]) -> list[str]:
    """Return the paths that a KServe v2 server answers when it can serve `works`."""
    return ["/v2/health/ready", *(f"/v2/models/{work.name}/ready" for work in works)]
