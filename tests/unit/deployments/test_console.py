"""What the command shows: plain lines into a file, drawn tables and a moving line on a terminal."""

import io

import pytest
from rich.console import Console

from trygon.deployments.console import Progress, show_error, show_index, show_json, show_metadata
from trygon.deployments.repository_client import IndexRow
from trygon.errors import ErrorCode, InferenceError

READY = IndexRow("digits", "1", "READY", "")
LOADING = IndexRow("slow", "2", "LOADING", "")
BAD = IndexRow("broken", "1", "UNAVAILABLE", "no [bold]model[/bold]\nat all")


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def shown(terminal: Console) -> str:
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_a_plain_table_has_aligned_columns_and_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_index([READY, BAD])
    assert capsys.readouterr().out.splitlines() == [
        "MODEL   VERSION  STATE        REASON",
        "digits  1        READY",
        "broken  1        UNAVAILABLE  no [bold]model[/bold] at all",
    ]


def test_a_reason_is_text_on_a_terminal_and_never_markup(terminal: Console) -> None:
    show_index([BAD], terminal)
    assert "no [bold]model[/bold]" in shown(terminal)


def test_plain_progress_is_one_line_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.stage("Starting Ray")
        progress.models([LOADING, IndexRow("never", "", "", "")])
        progress.models([LOADING])
        progress.models([IndexRow("slow", "2", "READY", "")])
    assert capsys.readouterr().out.splitlines() == ["Starting Ray", "slow 2: LOADING", "slow 2: READY"]


def test_progress_on_a_terminal_counts_what_is_ready_and_names_what_loads(terminal: Console) -> None:
    with Progress(terminal) as progress:
        progress.stage("Starting Ray")
        progress.models([READY, LOADING])
        progress.models([READY])
    assert "Loading models, 1 of 1 ready" in shown(terminal)


def test_metadata_is_a_line_on_the_model_and_a_table_of_its_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [-1, 64]}
    show_metadata({"name": "digits", "platform": "onnx", "versions": ["1", "2"], "inputs": [tensor], "outputs": []})
    assert capsys.readouterr().out.splitlines() == [
        "digits (onnx), versions 1, 2",
        "TENSOR  NAME   DATATYPE  SHAPE",
        "input   image  FP32      [-1, 64]",
    ]


def test_an_error_goes_to_stderr_with_its_code_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(InferenceError(ErrorCode.SYSTEM_PORT_IN_USE, "port 1 is held"))
    streams = capsys.readouterr()
    assert streams.err.startswith("error: SYSTEM_PORT_IN_USE: port 1 is held\nhelp: ")
    assert not streams.out


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_json([READY.as_dict()])
    assert '"state": "READY"' in capsys.readouterr().out
