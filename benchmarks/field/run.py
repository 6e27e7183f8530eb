"""Run the field benchmark: `python -m field.run --help`, from benchmarks/."""

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from field.bench import Bench
from field.cells import POISSON, Cell, Choice, cells
from field.environments import OUT, ROOT, EnvironmentUnavailableError, python_of
from field.measurement import Measurement
from field.peers import PEERS, Peer
from field.peers.base import PROGRAMS, TRANSPORTS
from field.report import Result, machine, markdown, publish
from field.window import Timing
from field.works import BY_NAME, CONSTANT, WORKS

QUICK_SERVERS = ("trygon", "triton", "raw", "uvicorn")
QUICK_WORKS = ("tiny", "device")


def main() -> int:
    """Run and write; 1 if a request failed or nothing was measured."""
    given = arguments().parse_args()
    peers = [PEERS[name] for name in given.servers]
    folder = given.out or OUT / time.strftime("%Y%m%dT%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    # Servers would inherit the load generator's cores.
    server_cpus = given.server_cpus or sorted(os.sched_getaffinity(0))
    if given.load_cpus:
        os.sched_setaffinity(0, given.load_cpus)
    bench = Bench(OUT / "models", folder, Timing(given.warmup, given.seconds), server_cpus)
    broken = bench.prepare([work for work in WORKS if not given.works or work.name in given.works])
    choice = Choice(given.works, given.transports, given.connections)
    plan = {peer.name: [cell for cell in cells(peer, choice) if cell.work.name not in broken] for peer in peers}
    count = sum(map(len, plan.values()))
    about_s = count * (given.warmup + given.seconds) * given.rounds
    print(
        f"{given.rounds} rounds of {count} cells, {about_s / 60:.0f} min of load and the starts; into {folder}",
        flush=True,
    )
    results = [
        Result(peer.name, cell, [], [], _why(peer, cell, broken)) for peer, cell in _left_out(peers, choice, broken)
    ]
    found: dict[tuple[str, Cell], Result] = {
        (name, cell): Result(name, cell, [], []) for name, planned in plan.items() for cell in planned
    }
    gc.disable()
    for round_ in range(1, given.rounds + 1):
        for peer in peers[round_ % len(peers) :] + peers[: round_ % len(peers)]:
            wanted = [cell for cell in plan[peer.name] if not found[peer.name, cell].why]
            for cell, got in bench.measure(peer, wanted):
                _note(found[peer.name, cell], got, round_)
            gc.collect()
    results += found.values()
    return _finish(folder, results, given)


def _note(result: Result, got: Measurement | str, round_: int) -> None:
    cell = result.cell
    place = f"{round_} {result.server:14} {cell.work.name:9} {cell.transport:18} {cell.in_flight:4}"
    if isinstance(got, str):
        result.why = got
        print(f"{place} not measured: {got}", flush=True)
        return
    if got.errors:
        result.errors.append(f"round {round_}: {got.errors} errors, the first: {got.first_error}")
    result.rounds.append(got)
    wrong = f"  {got.errors} ERRORS: {got.first_error}" if got.errors else ""
    print(
        f"{place} {got.requests_per_s:9.1f}/s  p50 {got.p50_ms:8.2f} ms  p99 {got.p99_ms:8.2f} ms"
        f"  cpu {got.cpu_ms:7.3f} ms{wrong}",
        flush=True,
    )


def _left_out(peers: Sequence[Peer], choice: Choice, broken: dict[str, str]) -> list[tuple[Peer, Cell]]:
    """Return one cell for each peer and wanted work that is not measured at all."""
    return [
        (peer, cell)
        for peer in peers
        for work in WORKS
        if work.name in broken or peer.cannot(work)
        if choice.takes(cell := Cell(work, "http", work.http[0])) or work.name in choice.works
    ]


def _why(peer: Peer, cell: Cell, broken: dict[str, str]) -> str:
    return broken.get(cell.work.name) or peer.cannot(cell.work)


def _finish(folder: Path, results: list[Result], given: argparse.Namespace) -> int:
    about = machine() | {
        "seconds": given.seconds,
        "warmup": given.warmup,
        "rounds": given.rounds,
        "server_cpus": given.server_cpus,
        "load_cpus": given.load_cpus,
    }
    faults = [f"{result.label}: {error}" for result in results for error in result.errors]
    content: dict[str, Any] = {"about": about, "errors": faults, "results": [result.as_dict() for result in results]}
    (folder / "results.json").write_text(json.dumps(content, indent=1, default=dataclasses.asdict))
    if faults:
        print("\nNo report: requests failed.", *faults, sep="\n  ")
        return 1
    if not any(result.rounds for result in results):
        print("\nNo report: nothing was measured.")
        return 1
    (folder / "report.md").write_text(markdown(results, about))
    _plot(folder)
    print(f"\n{folder / 'report.md'}\n{folder / 'plot.png'}\n{folder / 'results.json'}")
    if given.publish:
        publish(folder, ROOT / "docs")
        print("published to docs/performance.md")
    return 0


def _plot(folder: Path) -> None:
    """Draw the plot; a run that took half an hour does not fail for want of it."""
    try:
        plot = [python_of("plot"), PROGRAMS / "plot.py", folder / "results.json", folder / "plot.png"]
        subprocess.run(plot, check=True)
    except (EnvironmentUnavailableError, OSError, subprocess.CalledProcessError) as error:
        print(f"no plot: {error}")


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--servers", type=_names(PEERS), default=list(PEERS), help=f"of {', '.join(PEERS)}")
    works = [*BY_NAME, CONSTANT]
    parser.add_argument("--works", type=_names(works), default=[], help=f"of {', '.join(works)}")
    transports = [*TRANSPORTS, POISSON]
    parser.add_argument(
        "--transports", type=_names(transports, ";"), default=[], help=f"of {'; '.join(transports)}".replace("%", "%%")
    )
    parser.add_argument("--connections", type=_numbers, default=[], help="only these numbers of requests in flight")
    parser.add_argument("--seconds", type=float, default=1.8, help="measured window of a cell")
    parser.add_argument("--warmup", type=float, default=0.5, help="load before the window")
    parser.add_argument("--rounds", type=int, default=3, help="each server once in a round; medians are reported")
    parser.add_argument("--server-cpus", type=_numbers, default=[], help="pin the servers to these cores")
    parser.add_argument("--load-cpus", type=_numbers, default=[], help="pin the load generator to these cores")
    parser.add_argument("--out", type=Path, help="folder of the results; benchmarks/out/<time> unless given")
    parser.add_argument("--publish", action="store_true", help="put the table and the plot into docs/")
    parser.add_argument(
        "--quick",
        action=_Quick,
        nargs=0,
        help=f"one short round of {', '.join(QUICK_SERVERS)} with {', '.join(QUICK_WORKS)}; put other options after it",
    )
    return parser


class _Quick(argparse.Action):
    """Sets a handful of options, which later ones may change again."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set them."""
        del parser, values, option_string
        namespace.servers = list(QUICK_SERVERS)
        namespace.works = list(QUICK_WORKS)
        namespace.seconds, namespace.warmup, namespace.rounds = 1.0, 0.4, 1


def _names(allowed: Any, separator: str = ",") -> Any:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(separator) if name.strip()]
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(allowed)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
