"""The one real server of a test run, and the means to start others."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trygon.deployments.data_directory import DataDirectory
from trygon.deployments.processes import end_processes, own_processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"
FIRST_PORT, LAST_PORT = 18_000, 18_999
START_LIMIT_S = 180
STOP_LIMIT_S = 20


@dataclass
class TrygonCommand:
    """A `trygon serve` that runs: `lines` are what it has printed on stdout and stderr so far."""

    data_dir: Path
    http_port: int
    grpc_port: int
    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """Host and port, as tritonclient.grpc wants them."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def runtime_dir(self) -> Path:
        return DataDirectory(self.data_dir).runtime_dir

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def read_until(self, text: str) -> bool:
        """Read lines until one holds `text`; False when the output ends before."""
        assert self.process.stdout
        watchdog = threading.Timer(START_LIMIT_S, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line)
                if text in line:
                    return True
            return False
        finally:
            watchdog.cancel()

    def wait_until_ready(self) -> None:
        assert self.read_until("Trygon is ready"), self.output + self.log()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=STOP_LIMIT_S)
        self.lines.append(output)
        return self.process.returncode

    def log(self) -> str:
        log = self.data_dir / "logs" / "trygon.log"
        return log.read_text() if log.exists() else ""

    def left_over_processes(self) -> list[int]:
        return [process.pid for process in own_processes(self.runtime_dir)]

    def ports_are_free(self) -> bool:
        return all(port_is_free(port) for port in (self.http_port, self.grpc_port))

    def clean_up(self) -> None:
        """End whatever is left, however the test ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        end_processes(self.runtime_dir, timeout_s=5)
        shutil.rmtree(self.runtime_dir, ignore_errors=True)


@dataclass(frozen=True)
class RunningServer:
    """The server that all tests share. It is in explicit mode and has loaded the examples; tests may load more."""

    http_url: str
    grpc_url: str
    repository: Path
    data_dir: Path
    ray_address: str


def port_is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports() -> tuple[int, int]:
    """Return two free ports, below the ones that outgoing connections get."""
    span = LAST_PORT - FIRST_PORT
    candidates = (FIRST_PORT + (os.getpid() * 10 + step) % span for step in range(span))
    free = (port for port in candidates if port_is_free(port))
    return next(free), next(free)


def start_command(data_dir: Path, ports: tuple[int, int], *arguments: str) -> TrygonCommand:
    environment = {
        **os.environ,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "trygon.cli", "serve", "--data-dir", str(data_dir)),
            *("--http-port", str(ports[0]), "--grpc-port", str(ports[1]), *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=data_dir.parent,
    )
    return TrygonCommand(data_dir, *ports, process)


@pytest.fixture(scope="module")
def spare_ports() -> tuple[int, int]:
    """Two free ports for a server of the module's own."""
    return free_ports()


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[..., TrygonCommand]]:
    """Start servers of the module's own; what is left of them at the module's end is killed."""
    started: list[TrygonCommand] = []

    def start(data_dir: Path, ports: tuple[int, int], *arguments: str) -> TrygonCommand:
        started.append(start_command(data_dir, ports, *arguments))
        return started[-1]

    yield start
    for command in started:
        command.clean_up()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("server")
    repository = root / "models"
    shutil.copytree(EXAMPLES, repository)
    command = start_command(
        root / "data",
        free_ports(),
        *("--model-repository", str(repository), "--model-control-mode", "explicit", "--load-model", "*"),
    )
    try:
        command.wait_until_ready()
        state = json.loads((command.data_dir / "server.json").read_text())
        yield RunningServer(
            command.http_url, command.grpc_url, repository, command.data_dir, ray_address=state["ray_address"]
        )
        assert command.end() == 0, command.output
        assert command.left_over_processes() == []
    finally:
        command.clean_up()
