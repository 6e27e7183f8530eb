"""`trygon models` against the real server."""

import json
from typing import Any

from click.testing import CliRunner, Result

from trygon.cli import main


def models(server: Any, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments, "--url", server.http_url])


def test_a_model_is_unloaded_and_loaded_again(server: Any) -> None:
    assert "UNAVAILABLE" in models(server, "unload", "digits_onnx").output
    assert "READY" in models(server, "load", "digits_onnx").output
    rows = json.loads(models(server, "list", "--json").output)
    assert {row["name"]: row["state"] for row in rows}["digits_onnx"] == "READY"


def test_a_model_is_shown_with_its_tensors(server: Any) -> None:
    metadata = json.loads(models(server, "show", "digits_onnx", "--json").output)
    assert metadata["name"] == "digits_onnx"
    assert metadata["inputs"]


def test_a_model_that_is_not_there_is_a_clear_error(server: Any) -> None:
    result = models(server, "load", "nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: MODEL_NOT_FOUND: ")
