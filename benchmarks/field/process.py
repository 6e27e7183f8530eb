"""A server as a tree of processes: start it, wait until it answers, count its CPU time, end all of it."""

import http.client
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

MARK: Final = "TRYGON_BENCH_MARK"
"""Environment variable by which every process of a server is found, also those that left its process group."""
START_TIMEOUT_S: Final = 120.0
SETTLE_S: Final = 2.0
_STOP_TIMEOUT_S: Final = 20.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class StartError(RuntimeError):
    """A server did not come up; the text says why."""


class ServerProcess:
    """One running server."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, cpus: Sequence[int]) -> None:
        self._mark = uuid.uuid4().hex
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TRYGON_"))}
        inherited.pop("VIRTUAL_ENV", None)
        pin = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*pin, *command],
                env={**inherited, **environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=log.parent,
            )

    def wait_until_ready(self, port: int, paths: Sequence[str]) -> None:
        """Wait until each path answers a GET on `port` with a status below 300; without paths, until it is open.

        Raises: StartError with the end of the log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        waiting = list(paths) or [""]
        while waiting:
            if self._process.poll() is not None:
                raise StartError(f"ended with {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {START_TIMEOUT_S:.0f} s: {self._last_words()}")
            if _answers(port, waiting[0]):
                waiting.pop(0)
            else:
                time.sleep(0.1)
        # Servers reload their proxies and import the rest just after they say that they are ready.
        time.sleep(SETTLE_S)

    def pids(self) -> list[int]:
        """Return the processes of the server, wherever they hang in the process tree."""
        wanted = f"{MARK}={self._mark}".encode()
        found = []
        for process in psutil.process_iter():
            try:
                if wanted in Path(f"/proc/{process.pid}/environ").read_bytes():
                    found.append(process.pid)
            except OSError:
                continue
        return found

    def stop(self) -> None:
        """End all processes of the server: politely first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-4:])[-600:]


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time that the processes have used so far, in seconds; those that ended count as 0."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.connect()
        if not path:
            return True
        connection.request("GET", path)
        return connection.getresponse().status < http.client.MULTIPLE_CHOICES
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
