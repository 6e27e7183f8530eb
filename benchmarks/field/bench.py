"""Measures cells of one server: starts it, sends it load, stops it."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from field import grpc_load, payload
from field.cells import Cell
from field.environments import EnvironmentUnavailableError, python_of
from field.load import HttpLoad
from field.measurement import Measurement
from field.models import make_model, reference
from field.payload import V2Json
from field.peers import Peer
from field.peers.base import GRPC, JSON, STREAM, Launch
from field.process import ServerProcess, StartError
from field.window import Timing
from field.works import CONSTANT, Array, Work


@dataclass(slots=True)
class Bench:
    """The models, and where things go."""

    models: Path
    logs: Path
    timing: Timing
    server_cpus: Sequence[int] = ()
    _known: dict[str, tuple[dict[str, Any], list[list[Array]]]] = field(default_factory=dict)
    _broken: dict[str, str] = field(default_factory=dict)

    def prepare(self, works: Sequence[Work]) -> dict[str, str]:
        """Make the models; return why some could not be made, by work."""
        for work in works:
            try:
                if not (self.models / work.name / "about.json").exists():
                    make_model(work, self.models / work.name)
                self._known[work.name] = reference(work, self.models / work.name)
            except (OSError, subprocess.CalledProcessError) as error:
                self._broken[work.name] = f"its model cannot be made: {error}"
        return self._broken

    def measure(self, peer: Peer, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Measurement | str]]:
        """Measure cells of one peer; a text in the place of a measurement says why there is none."""
        try:
            python = python_of(peer.environment)
        except EnvironmentUnavailableError as error:
            yield from ((cell, str(error)) for cell in cells)
            return
        for group in _groups(peer, cells):
            works = list({cell.work.name: cell.work for cell in group if cell.work.name != CONSTANT}.values())
            yield from self._measure_group(peer, works, group, python)

    def _measure_group(
        self, peer: Peer, works: Sequence[Work], cells: Sequence[Cell], python: Path
    ) -> Iterator[tuple[Cell, Measurement | str]]:
        # Unix sockets live below it, and their paths may have 107 characters.
        scratch = Path(tempfile.mkdtemp(prefix="tb"))
        server = None
        try:
            launch = peer.launch(works, self.models, scratch, python)
            if peer.name == "raw":
                yield from ((cell, _raw(launch, cell, self.timing, self.server_cpus)) for cell in cells)
                return
            log = self.logs / f"{peer.name}-{'-'.join(work.name for work in works) or CONSTANT}.log"
            server = ServerProcess(launch.command, launch.environment, log, self.server_cpus)
            server.wait_until_ready(launch.http_port, launch.ready)
            for cell in cells:
                yield cell, self._load(peer, launch, cell, server.pids())
        except StartError as error:
            yield from ((cell, f"did not start: {error}") for cell in cells)
        except OSError as error:
            yield from ((cell, f"cannot be started: {error}") for cell in cells)
        finally:
            if server:
                server.stop()
            shutil.rmtree(scratch, ignore_errors=True)

    def _load(self, peer: Peer, launch: Launch, cell: Cell, pids: Sequence[int]) -> Measurement:
        if cell.work.name == CONSTANT:
            load = HttpLoad(launch.http_port, [payload.constant_request()], lambda *_: "", pids)
            return load.closed_loop(cell.in_flight, self.timing)
        about, expected = self._known[cell.work.name]
        rows = cell.work.rows()
        if cell.transport in {GRPC, STREAM}:
            return self._load_grpc(launch, cell, about, expected, pids)
        form = V2Json() if cell.transport == JSON else next(iter(peer.formats.values()))
        if form is None:
            raise ValueError(f"{peer.name} has no format for {cell.transport}")

        def check(row: int, head: bytes, body: bytes) -> str:
            return _fault(lambda: form.answer(about, head, body), expected[row])

        requests = [form.request(cell.work, about, row) for row in rows]
        load = HttpLoad(launch.http_port, requests, check, pids)
        if cell.rate:
            return load.open_loop(cell.rate, cell.in_flight, self.timing)
        return load.closed_loop(cell.in_flight, self.timing)

    def _load_grpc(
        self, launch: Launch, cell: Cell, about: dict[str, Any], expected: list[list[Array]], pids: Sequence[int]
    ) -> Measurement:
        rows = cell.work.rows()

        def check(row: int, message: bytes) -> str:
            return _fault(lambda: payload.grpc_answer(about, message), expected[row])

        def message(row: int, request_id: str = "") -> bytes:
            return payload.grpc_message(cell.work, about, rows[row], request_id)

        if cell.transport == STREAM:
            return grpc_load.stream(launch.grpc_port, message, len(rows), check, cell.in_flight, self.timing, pids)
        messages = [message(row) for row in range(len(rows))]
        return grpc_load.unary(launch.grpc_port, messages, check, cell.in_flight, self.timing, pids)


def _fault(read: Callable[[], Sequence[Array]], expected: Sequence[Array]) -> str:
    """Return what is wrong with an answer's values."""
    try:
        outputs = read()
    except Exception as error:  # noqa: BLE001 - whatever a server sends that cannot be read is its fault
        return f"an answer that cannot be read: {type(error).__name__}: {error}"
    return "" if payload.agrees(outputs, expected) else "an answer with wrong values"


def _groups(peer: Peer, cells: Sequence[Cell]) -> list[list[Cell]]:
    if not peer.one_model:
        return [list(cells)]
    names = dict.fromkeys(cell.work.name for cell in cells)
    return [[cell for cell in cells if cell.work.name == name] for name in names]


def _raw(launch: Launch, cell: Cell, timing: Timing, cpus: Sequence[int]) -> Measurement | str:
    rows = min(cell.in_flight, max(cell.work.max_batch_size, 1))
    program, folder = launch.command[:-1], Path(launch.command[-1]).with_name(cell.work.name)
    pin = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
    command = [*pin, *program, str(folder), str(rows), str(timing.warmup_s), str(timing.window_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed: {done.stderr.strip()[-300:]}"
    found = json.loads(done.stdout)
    return Measurement(
        requests=found["requests"],
        seconds=round(found["seconds"], 3),
        requests_per_s=round(found["requests"] / found["seconds"], 1),
        p50_ms=round(found["p50_ms"], 3),
        p99_ms=round(found["p99_ms"], 3),
        errors=0,
        first_error="",
        cpu_ms=round(found["cpu_s"] / found["requests"] * 1000, 4),
    )
