"""The command's side of the process that holds Ray: the order it gets, the events it reports, and its end."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Stage(StrEnum):
    """What the cluster has come to."""

    RAY = "ray"
    SERVE = "serve"
    APPLICATION = "application"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Event:
    """One report: a stage that was reached, with the Ray address at RAY, and code and message at FAILED."""

    stage: Stage
    address: str = ""
    code: str = ""
    message: str = ""

    def to_line(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> "Event":
        """Read what `to_line` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "stage": Stage(fields["stage"])})


@dataclass(frozen=True, slots=True)
class Order:
    """What to start. `address` names a cluster to join, or is empty to start one below `ray_dir`."""

    settings: dict[str, Any]
    address: str
    ray_dir: str
    log_level: str

    def to_line(self) -> str:
        """Return the order as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> "Order":
        """Read what `to_line` wrote."""
        return cls(**json.loads(line))


class ClusterProcess:
    """A running `trygon.deployments.cluster`. It stops when it is asked to, and when this process dies."""

    def __init__(self, order: Order, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as sink:
            # A session of its own: the terminal's Ctrl-C is for the command alone, which then ends the rest in order.
            # -P keeps the working directory, with whatever models/ or errors.py it holds, out of the import path.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trygon.deployments.cluster"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=dict(environment),
                start_new_session=True,
                text=True,
            )
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="cluster-events", daemon=True)
        self._reader.start()
        assert self._process.stdin is not None  # noqa: S101 - Popen was told PIPE
        try:
            self._process.stdin.write(order.to_line() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it died already, which `exit_code` tells

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def next_event(self, timeout_s: float) -> Event | None:
        """Return the next event, or None when there is none within `timeout_s`."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def ask_to_stop(self) -> None:
        """Ask for a stop in good order; `exit_code` tells when it is done."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                return

    def kill(self) -> None:
        """End it at once and take its exit code. What it has started is left to `end_processes`."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - Popen was told PIPE
        for line in self._process.stdout:
            self._events.put(Event.from_line(line))
