"""The report: medians by server and load, what was not measured and why, and no figures of a run with errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from field.cells import POISSON, Cell, Choice, cells
from field.measurement import Measurement
from field.peers import PEERS
from field.peers.base import HTTP
from field.report import BEGIN, END, Result, markdown, publish
from field.run import arguments
from field.works import BY_NAME, WORKS

ABOUT: dict[str, Any] = {
    "date": "2026-11-23",
    "processor": "a CPU",
    "cores": 2,
    "memory_gib": 24,
    "system": "Linux 6",
    "commit": "abc",
    "rounds": 3,
    "seconds": 2.0,
    "server_cpus": [],
    "load_cpus": [1],
}


def result(server: str, in_flight: int, *rates: float, why: str = "", rate: float = 0) -> Result:
    rounds = [Measurement(100, 2.0, rate, 1.5, 9.25, 0, "", 0.5) for rate in rates]
    return Result(server, Cell(BY_NAME["tiny"], HTTP, in_flight, rate), rounds, why=why)


def test_a_table_has_the_median_of_the_rounds_by_server_and_load() -> None:
    text = markdown(
        [result("triton", 1, 300, 100, 110), result("trygon", 1, 5, 6, 7), result("triton", 64, 2000)], ABOUT
    )
    assert "**tiny MLP, 64 → 10, http**" in text
    assert "| server | c = 1 | c = 64 |" in text
    assert text.index("| Trygon | 6 ") < text.index("| Triton (python backend) | 110 ")
    assert "2,000 (1.50 / 9.25; 0.50)" in text
    assert "servers on all cores, load generator on cores 1" in text


def test_rates_that_differ_much_between_rounds_are_marked() -> None:
    text = markdown([result("triton", 1, 300, 100, 200), result("trygon", 1, 100, 101, 102)], ABOUT)
    assert "| 200 ±50% (" in text
    assert "| 101 (" in text


def test_what_was_not_measured_is_told_with_its_reason() -> None:
    text = markdown(
        [
            result("trygon", 1, 5),
            result("mosec", 1, why="did not start: no"),
            result("mosec", 2, why="did not start: no"),
        ],
        ABOUT,
    )
    assert text.count("- mosec (raw bytes), tiny: did not start: no") == 1


def test_a_run_with_errors_has_no_figures() -> None:
    wrong = result("triton", 64, 1000)
    wrong.errors.append("round 1: 3 errors")
    with pytest.raises(ValueError, match="requests failed: triton, tiny, http, 64 in flight"):
        markdown([result("trygon", 1, 5), wrong], ABOUT)


def test_a_result_is_json() -> None:
    content = json.loads(json.dumps(result("triton", 1, 300).as_dict()))
    assert content["rounds"][0]["requests_per_s"] == 300
    assert content["title"] == "tiny MLP, 64 → 10"


def test_publishing_replaces_the_marked_section_alone(tmp_path: Path) -> None:
    out, docs = tmp_path / "out", tmp_path / "docs"
    out.mkdir()
    docs.mkdir()
    (out / "report.md").write_text("new table")
    (out / "plot.png").write_bytes(b"png")
    (docs / "performance.md").write_text(f"before\n{BEGIN}\nold table\n{END}\nafter\n")
    publish(out, docs)
    text = (docs / "performance.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "new table" in text
    assert "old table" not in text
    assert (docs / "performance.png").read_bytes() == b"png"
    (docs / "performance.md").write_text("no markers")
    with pytest.raises(ValueError, match="no section"):
        publish(out, docs)


def test_the_page_has_the_section_that_is_published() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "performance.md"
    text = page.read_text()
    assert text.index(BEGIN) < text.index(END)


def test_every_peer_is_measured_with_every_work_that_it_can_do() -> None:
    for peer in PEERS.values():
        wanted = {work.name for work in WORKS if not peer.cannot(work)}
        assert {cell.work.name for cell in cells(peer, Choice())} - {"constant"} == wanted


def test_a_choice_narrows_the_cells() -> None:
    choice = Choice(works=["device"], transports=[HTTP, POISSON], in_flight=[8])
    assert [(cell.transport, cell.in_flight) for cell in cells(PEERS["triton"], choice)] == [(HTTP, 8), (POISSON, 512)]


def test_quick_is_a_start_that_other_options_change() -> None:
    given = arguments().parse_args(["--quick", "--rounds", "2"])
    assert given.servers == ["trygon", "triton", "raw", "uvicorn"]
    assert (given.rounds, given.seconds) == (2, 1.0)


@pytest.mark.parametrize("wrong", [["--servers", "nginx"], ["--works", "tiny,huge"], ["--transports", "udp"]])
def test_what_is_not_known_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments().parse_args(wrong)
    assert "is none of" in capsys.readouterr().err
