"""A server's own processes are found by their mark and ended; nobody else's are."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trygon.deployments.processes import end_processes, own_processes

Spawn = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start processes that carry a mark and wait for the end of their input."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(runtime_dir: Path) -> subprocess.Popen[bytes]:
        program = "import sys; print(flush=True); sys.stdin.read()"
        process = subprocess.Popen(  # noqa: S603 - the line above
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TRYGON_RUNTIME_DIR": str(runtime_dir)},
        )
        started.append(process)
        assert process.stdout
        process.stdout.readline()
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


def test_only_processes_with_the_mark_are_its_own(spawn: Spawn, tmp_path: Path) -> None:
    ours = spawn(tmp_path / "ours")
    spawn(tmp_path / "other")
    assert [process.pid for process in own_processes(tmp_path / "ours")] == [ours.pid]
    assert own_processes(tmp_path / "nobody") == []


def test_the_process_that_asks_is_not_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "environ", lambda _: {"TRYGON_RUNTIME_DIR": str(tmp_path)})
    assert os.getpid() not in [process.pid for process in own_processes(tmp_path)]


def test_ending_kills_its_own_and_spares_the_others(spawn: Spawn, tmp_path: Path) -> None:
    ours, other = spawn(tmp_path / "ours"), spawn(tmp_path / "other")
    assert end_processes(tmp_path / "ours", timeout_s=10) == []
    assert ours.wait() == -9
    assert other.poll() is None


def test_what_outlives_the_time_is_returned(spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = spawn(tmp_path)
    monkeypatch.setattr(psutil.Process, "kill", lambda _: None)
    now = iter([0.0, 1.0, 2.0])
    left = end_processes(tmp_path, timeout_s=2, clock=lambda: next(now), sleep=lambda _: None)
    assert [process.pid for process in left] == [stubborn.pid]


def test_a_process_that_ends_by_itself_meanwhile_is_no_fault(
    spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = spawn(tmp_path)
    kill = psutil.Process.kill

    def too_late(own: psutil.Process) -> None:
        kill(own)
        raise psutil.NoSuchProcess(own.pid)

    monkeypatch.setattr(psutil.Process, "kill", too_late)
    assert end_processes(tmp_path, timeout_s=10) == []
    assert process.wait() == -9
