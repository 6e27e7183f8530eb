"""The command line: what it passes on, what it prints, and how it ends."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trygon.cli import main
from trygon.errors import ErrorCode, InferenceError
from trygon.settings import ModelControlMode, Profile, Settings

NOWHERE = "http://127.0.0.1:1"


class Runs:
    """Stands in for the server: records how it was called, and ends with `error` if there is one."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.launch: Any = None
        self.error: Exception | None = None

    def __call__(self, settings: Settings, launch: Any, *_: Any) -> "Runs":
        self.settings, self.launch = settings, launch
        return self

    def run(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr("trygon.deployments.server.Server", runs)
    monkeypatch.setattr("trygon.deployments.server.StopSignals", lambda: None)
    monkeypatch.setenv("TRYGON_CONFIG", "")
    return runs


def trygon(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_option_reaches_the_settings(runs: Runs) -> None:
    result = trygon(
        "serve",
        *("--model-repository", "a", "--model-repository", "b", "--model-control-mode", "explicit"),
        *("--load-model", "x", "--load-model", "*", "--repository-poll-secs", "2.5", "--host", "127.0.0.2"),
        *("--http-port", "1", "--grpc-port", "2", "--server-name", "triton", "--profile", "test", "--data-dir", "d"),
        *("--address", "auto", "--exit-on-error", "--log-level", "debug"),
    )
    assert result.exit_code == 0, result.output
    settings = runs.settings
    assert settings
    assert settings.model_repository == ("a", "b")
    assert settings.model_control_mode is ModelControlMode.EXPLICIT
    assert settings.load_model == ("x", "*")
    assert settings.repository_poll_s == 2.5
    assert (settings.host, settings.http_port, settings.grpc_port) == ("127.0.0.2", 1, 2)
    assert (settings.server_name, settings.profile, settings.data_dir) == ("triton", Profile.TEST, Path("d"))
    assert (runs.launch.address, runs.launch.exit_on_error, runs.launch.log_level) == ("auto", True, "DEBUG")


def test_options_come_before_the_environment_and_that_before_the_file(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "trygon.yaml"
    file.write_text("http_port: 1\ngrpc_port: 1\nserver_name: file\n")
    monkeypatch.setenv("TRYGON_HTTP_PORT", "2")
    monkeypatch.setenv("TRYGON_GRPC_PORT", "2")
    result = trygon("serve", "--config", str(file), "--http-port", "3")
    assert result.exit_code == 0, result.output
    assert runs.settings
    assert (runs.settings.http_port, runs.settings.grpc_port, runs.settings.server_name) == (3, 2, "file")


def test_a_wrong_setting_is_wrong_usage_and_names_the_setting(runs: Runs) -> None:
    result = trygon("serve", "--http-port", "70000")
    assert result.exit_code == 2
    assert "error: SYSTEM_CONFIG_INVALID: invalid settings: http_port" in result.stderr
    assert runs.settings is None


@pytest.mark.parametrize("arguments", [["--bogus"], ["--config", "/no/such/file"], ["--profile", "x"], ["extra"]])
def test_what_is_no_option_is_wrong_usage(runs: Runs, arguments: list[str]) -> None:
    assert trygon("serve", *arguments).exit_code == 2
    assert runs.settings is None


def test_a_failure_has_code_message_and_help_and_exit_code_1(runs: Runs) -> None:
    runs.error = InferenceError(ErrorCode.SYSTEM_PORT_IN_USE, "port 8000 is held by pid 1: init")
    result = trygon("serve")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: SYSTEM_PORT_IN_USE: port 8000 is held by pid 1: init",
        f"help: {ErrorCode.SYSTEM_PORT_IN_USE.help}",
    ]


def test_a_fault_of_our_own_is_told_without_a_traceback_which_the_log_has(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.error = ZeroDivisionError("oh")
    with caplog.at_level(logging.ERROR):
        result = trygon("serve")
    assert result.exit_code == 1
    assert "error: SYSTEM_INTERNAL: ZeroDivisionError: oh" in result.stderr
    assert "Traceback" not in result.output
    assert "Traceback" in caplog.text


def test_list_shows_a_table_or_json(v2_server: Any) -> None:
    v2_server.set_index(("digits", "1", "READY", ""))
    assert trygon("models", "list", "--url", v2_server.url).output.splitlines()[1] == "digits  1        READY"
    rows = json.loads(trygon("models", "list", "--json", "--url", v2_server.url).output)
    assert rows == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_load_and_unload_show_what_became_of_the_model(v2_server: Any, verb: str) -> None:
    v2_server.answers[f"POST /v2/repository/models/digits/{verb}"] = (200, {})
    v2_server.set_index(("digits", "1", "READY", ""), ("other", "1", "READY", ""))
    result = trygon("models", verb, "digits", "--url", v2_server.url)
    assert result.exit_code == 0
    assert "digits" in result.output
    assert "other" not in result.output
    assert len(json.loads(trygon("models", verb, "digits", "--json", "--url", v2_server.url).output)) == 1


def test_show_describes_the_tensors(v2_server: Any) -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [-1, 64]}
    metadata = {"name": "digits", "platform": "onnx", "versions": ["1"], "inputs": [tensor], "outputs": []}
    v2_server.answers["GET /v2/models/digits/versions/1"] = (200, metadata)
    asked = ("models", "show", "digits", "--version", "1", "--url", v2_server.url)
    assert "image  FP32" in trygon(*asked).output
    assert json.loads(trygon(*asked, "--json").output) == metadata


def test_the_servers_error_is_the_commands(v2_server: Any) -> None:
    body = {"errorCode": "MODEL_NOT_FOUND", "message": "no 'x'"}
    v2_server.answers["POST /v2/repository/models/x/load"] = (404, body)
    result = trygon("models", "load", "x", "--url", v2_server.url)
    assert result.exit_code == 1
    assert "error: MODEL_NOT_FOUND: no 'x'" in result.stderr


def test_a_server_that_does_not_answer_is_a_clear_error() -> None:
    result = trygon("models", "list", "--url", NOWHERE)
    assert result.exit_code == 1
    assert f"no server answers at {NOWHERE}" in result.stderr


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("trygon.cli", ["ray", "httpx", "rich", "pydantic", "tensorflow", "onnxruntime"]),
        ("trygon.deployments.server", ["ray", "tensorflow", "onnxruntime", "ai_edge_litert"]),
    ],
)
def test_the_command_imports_neither_ray_nor_a_runtime(module: str, absent: list[str]) -> None:
    program = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run(  # noqa: S603 - the line above
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_switches_of_a_cluster_are_printed_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRYGON_CONFIG", "")
    settings = tmp_path / "settings.yaml"
    settings.write_text("ingress: {max_body_bytes: 1000}")
    result = trygon("environment", "--config", str(settings))
    assert result.exit_code == 0, result.output
    script = 'eval "$(cat)"; echo $RAY_SERVE_ENABLE_HA_PROXY $RAY_SERVE_GRPC_MAX_MESSAGE_SIZE'
    shell = subprocess.run(  # noqa: S603 - the line above
        ["/bin/bash", "-c", script], input=result.output, check=True, capture_output=True, text=True
    )
    assert shell.stdout == "1 4000\n"
