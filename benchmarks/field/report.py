"""What a run found: medians over the rounds as Markdown, and the marked section of docs/performance.md."""

import dataclasses
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from field.cells import CONSTANT_WORK, Cell
from field.environments import ROOT, version_of
from field.measurement import Measurement
from field.peers import PEERS
from field.works import WORKS

BEGIN: Final = "<!-- make bench --publish: begin -->"
END: Final = "<!-- make bench --publish: end -->"
PUBLISHED_PLOT: Final = "performance.png"


@dataclass(slots=True)
class Result:
    """One cell of one server over all rounds; `why` says why it was not measured."""

    server: str
    cell: Cell
    rounds: list[Measurement]
    errors: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"{self.server}, {self.cell.work.name}, {self.cell.transport}, {self.cell.in_flight} in flight"

    def median(self, name: str) -> float:
        """Return the median of a measured quantity over the rounds."""
        return float(statistics.median(getattr(one, name) for one in self.rounds))

    def spread(self) -> float:
        """Return (largest - smallest) / median of the rates."""
        rates = [one.requests_per_s for one in self.rounds]
        return (max(rates) - min(rates)) / max(statistics.median(rates), 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "server": self.server,
            "work": self.cell.work.name,
            "title": self.cell.work.title,
            "transport": self.cell.transport,
            "in_flight": self.cell.in_flight,
            "rate": self.cell.rate,
            "why": self.why,
            "errors": self.errors,
            "rounds": [dataclasses.asdict(one) for one in self.rounds],
        }


def machine() -> dict[str, Any]:
    """Return where and when a run was made."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    model = next((line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model or platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def markdown(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """Return the report: where, one table per work and transport, and what was not measured.

    Raises: ValueError if a request failed.
    """
    if faults := [result.label for result in results if result.errors]:
        raise ValueError(f"requests failed: {'; '.join(faults)}")
    measured = [result for result in results if result.rounds and not result.why]
    place = f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}"
    how = f"Medians of {about['rounds']} interleaved rounds of {about['seconds']:g} s; {_pinning(about)}."
    text = [f"{about['date']}, commit {about['commit']}, {place}. {how}", ""]
    for work in (*WORKS, CONSTANT_WORK):
        of_work = [result for result in measured if result.cell.work.name == work.name]
        for transport in dict.fromkeys(result.cell.transport for result in of_work):
            text += [f"**{work.title}, {transport}**", ""]
            text += _table([result for result in of_work if result.cell.transport == transport])
    if versions := _versions(dict.fromkeys(result.server for result in measured)):
        text += [f"Versions: {versions}.", ""]
    if absent := _absent(results):
        text += ["**Not measured**", "", *absent, ""]
    return "\n".join(text)


def publish(folder: Path, docs: Path) -> None:
    """Put the report between the markers of docs/performance.md, and the plot beside it.

    Raises: ValueError if the markers are not there.
    """
    page = docs / "performance.md"
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no section between '{BEGIN}' and '{END}'")
    report = (folder / "report.md").read_text()
    plot = folder / "plot.png"
    picture = f"![Requests per second]({PUBLISHED_PLOT})\n\n" if plot.exists() else ""
    page.write_text(f"{before}{BEGIN}\n\n{picture}{report}\n{END}{after}")
    if picture:
        shutil.copyfile(plot, docs / PUBLISHED_PLOT)


def _table(results: Sequence[Result]) -> list[str]:
    columns = sorted({result.cell.in_flight for result in results})
    by_place = {(result.server, result.cell.in_flight): result for result in results}
    heads = [f"{'' if results[0].cell.rate else 'c = '}{column}" for column in columns]
    if results[0].cell.rate:
        heads = [f"{results[0].cell.rate:.0f}/s offered"]
    rows = [f"| server | {' | '.join(heads)} |", f"|---|{'---:|' * len(columns)}"]
    for server in _in_order(result.server for result in results):
        shown = [_shown(by_place.get((server, column))) for column in columns]
        rows.append(f"| {PEERS[server].title if server in PEERS else server} | {' | '.join(shown)} |")
    return ["requests/s (p50 / p99 ms; CPU ms per request)", "", *rows, ""]


def _shown(result: Result | None) -> str:
    if result is None:
        return "-"
    rate, p50, p99, cpu = (result.median(name) for name in ("requests_per_s", "p50_ms", "p99_ms", "cpu_ms"))
    doubtful = " ±" + f"{result.spread() / 2:.0%}" if len(result.rounds) > 1 and result.spread() > 0.2 else ""
    return f"{rate:,.0f}{doubtful} ({p50:.2f} / {p99:.2f}; {cpu:.2f})"


def _versions(servers: Iterable[str]) -> str:
    peers = [PEERS[name] for name in servers if name in PEERS and PEERS[name].package]
    return ", ".join(f"{peer.package} {version_of(peer.environment, peer.package)}" for peer in peers)


def _absent(results: Sequence[Result]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.why:
            works = reasons.setdefault((result.server, result.why), [])
            if result.cell.work.name not in works:
                works.append(result.cell.work.name)
    return [
        f"- {PEERS[server].title if server in PEERS else server}, {', '.join(works)}: {why}"
        for (server, why), works in reasons.items()
    ]


def _in_order(servers: Iterable[str]) -> list[str]:
    found = dict.fromkeys(servers)
    place: Callable[[str], int] = [*PEERS, *(name for name in found if name not in PEERS)].index
    return sorted(found, key=place)


def _pinning(about: Mapping[str, Any]) -> str:
    def cores(numbers: Sequence[int]) -> str:
        return f"cores {', '.join(map(str, numbers))}" if numbers else "all cores"

    return f"servers on {cores(about['server_cpus'])}, load generator on {cores(about['load_cpus'])}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
