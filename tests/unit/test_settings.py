"""Settings: who wins, what is refused, and that nothing changes afterwards."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from pydantic import ValidationError

from trygon.errors import ErrorCode, InferenceError
from trygon.settings import ModelControlMode, Profile, RunnerSettings, Settings

WriteFile: TypeAlias = Callable[[str], None]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TRYGON_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteFile:
    def write(text: str) -> None:
        path = tmp_path / "trygon.yaml"
        path.write_text(text)
        monkeypatch.setenv("TRYGON_CONFIG", str(path))

    return write


def fault_of(**given: Any) -> str:
    with pytest.raises(InferenceError) as caught:
        Settings.load(**given)
    assert caught.value.code is ErrorCode.SYSTEM_CONFIG_INVALID
    return caught.value.message


def test_defaults_are_those_of_a_developer() -> None:
    settings = Settings.load()
    assert settings.profile is Profile.DEV
    assert settings.host == "127.0.0.1"
    assert (settings.http_port, settings.grpc_port) == (8000, 8001)
    assert settings.model_control_mode is ModelControlMode.NONE
    assert settings.data_dir == Path(".trygon")


def test_arguments_win_over_environment_over_file_over_defaults(
    write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file("http_port: 1001\ngrpc_port: 1002\nserver_name: from-file\n")
    monkeypatch.setenv("TRYGON_GRPC_PORT", "2002")
    monkeypatch.setenv("TRYGON_SERVER_NAME", "from-environment")
    settings = Settings.load(server_name="from-arguments")
    assert settings.server_name == "from-arguments"
    assert settings.grpc_port == 2002
    assert settings.http_port == 1001
    assert settings.load_timeout_s == 300


def test_nested_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRYGON_INGRESS__MAX_BODY_BYTES", "1234")
    monkeypatch.setenv("TRYGON_RUNNERS", '{"onnx-cpu": {"num_cpus": 2}}')
    settings = Settings.load()
    assert settings.ingress.max_body_bytes == 1234
    assert settings.runner("onnx-cpu").num_cpus == 2


def test_environment_and_file_share_a_nested_setting(write_file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file("ingress: {max_replicas: 3, max_body_bytes: 5}\n")
    monkeypatch.setenv("TRYGON_INGRESS__MAX_BODY_BYTES", "7")
    ingress = Settings.load().ingress
    assert (ingress.max_replicas, ingress.max_body_bytes) == (3, 7)


def test_lists_come_from_the_file(write_file: WriteFile) -> None:
    write_file("model_repository: [/a, /b]\nload_model: ['*']\n")
    settings = Settings.load()
    assert settings.model_repository == ("/a", "/b")
    assert settings.load_model == ("*",)


def test_a_runner_without_settings_has_the_defaults() -> None:
    assert Settings.load().runner("litert-cpu") == RunnerSettings()


def test_unknown_keys_are_refused_wherever_they_stand(write_file: WriteFile) -> None:
    assert "no_such_setting" in fault_of(no_such_setting=1)
    assert "ingress.nope" in fault_of(ingress={"nope": 1})
    write_file("htpp_port: 8000\n")
    assert "htpp_port" in fault_of()


def test_every_wrong_setting_is_named() -> None:
    message = fault_of(http_port=70000, profile="staging")
    assert "http_port" in message
    assert "profile" in message


def test_settings_are_frozen_all_the_way_down() -> None:
    settings = Settings.load(runners={"onnx-cpu": {}})
    for model, field in (
        (settings, "http_port"),
        (settings.ingress, "num_cpus"),
        (settings.runner("onnx-cpu"), "threads"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, field, 1)


def test_neither_dotenv_nor_secret_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("TRYGON_HTTP_PORT=4444\n")
    monkeypatch.chdir(tmp_path)
    assert Settings.load().http_port == 8000
