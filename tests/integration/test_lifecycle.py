"""The command from start to end: signals, crashes, strangers on a port and models that cannot be loaded.

The tests of a class share one data directory and run in their order: each start is one more after a crash.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository of one good and one bad model, and room for a data directory."""
    root = tmp_path_factory.mktemp("lifecycle")
    shutil.copytree(EXAMPLES / "digits_onnx", root / "models" / "digits_onnx")
    broken = root / "models" / "broken"
    shutil.copytree(EXAMPLES / "digits_onnx", broken)
    for path in broken.glob("*/model.onnx"):
        path.write_bytes(b"this is no model")
    for path in broken.glob("config.pbtxt"):
        path.write_text(path.read_text().replace("digits_onnx", "broken"))
    return root


@pytest.fixture
def start(start_server: Start, root: Path, spare_ports: tuple[int, int]) -> Start:
    def start(*arguments: str) -> Any:
        return start_server(root / "data", spare_ports, "--model-repository", str(root / "models"), *arguments)

    return start


class TestOneServerAfterTheOther:
    def test_a_bad_model_is_a_row_with_its_reason_and_stops_nobody(self, start: Start) -> None:
        command = start()
        command.wait_until_ready()
        rows = {line.split()[0]: line for line in command.lines if "  " in line}
        assert " READY" in rows["digits_onnx"]
        assert "UNAVAILABLE" in rows["broken"]
        assert len(rows["broken"].split()) > 3  # the reason
        assert httpx.get(f"{command.http_url}/v2/models/digits_onnx/ready").status_code == 200
        state = json.loads((command.data_dir / "server.json").read_text())
        assert state["http"] == command.http_url
        for process in own_tree(command):
            process.kill()
        command.process.wait()

    def test_after_kill_9_of_the_whole_tree_the_next_start_works(self, start: Start) -> None:
        command = start()
        command.wait_until_ready()
        command.process.kill()
        command.process.wait()

    def test_after_kill_9_of_the_command_alone_the_next_start_works_and_a_bad_model_can_be_fatal(
        self, start: Start
    ) -> None:
        command = start("--exit-on-error")
        assert not command.read_until("Trygon is ready")
        assert command.process.wait() == 1
        assert "error: MODEL_UNAVAILABLE" in command.output
        assert "broken" in command.output
        assert command.left_over_processes() == []
        assert command.ports_are_free()

    def test_sigterm_ends_it_with_code_0_and_leaves_nothing(self, start: Start, root: Path) -> None:
        shutil.rmtree(root / "models" / "broken")
        command = start()
        command.wait_until_ready()
        assert command.left_over_processes()
        assert command.end(signal.SIGTERM) == 0
        assert command.left_over_processes() == []
        assert command.ports_are_free()
        assert not command.runtime_dir.exists()
        assert not (command.data_dir / "server.json").exists()

    def test_sigint_during_the_start_ends_it_with_code_0_and_leaves_nothing(self, start: Start) -> None:
        command = start()
        assert command.read_until("Starting Ray")
        assert command.end(signal.SIGINT) == 0
        assert command.left_over_processes() == []
        assert command.ports_are_free()


def test_a_stranger_on_the_port_is_named_and_left_alone(start: Start, spare_ports: tuple[int, int]) -> None:
    listen = (
        "import socket, sys\n"
        f"listener = socket.create_server(('127.0.0.1', {spare_ports[0]}))\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(  # noqa: S603 - the lines above
        [sys.executable, "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout
        stranger.stdout.readline()
        command = start()
        assert not command.read_until("Trygon is ready")
        assert command.process.wait() == 1
        assert f"error: SYSTEM_PORT_IN_USE: port {spare_ports[0]} is held by pid {stranger.pid}" in command.output
        assert "Traceback" not in command.output
        assert stranger.poll() is None
        stranger.terminate()


def own_tree(command: Any) -> list[psutil.Process]:
    """The command and all that it has started, directly or not."""
    return [psutil.Process(command.process.pid), *(psutil.Process(pid) for pid in command.left_over_processes())]
