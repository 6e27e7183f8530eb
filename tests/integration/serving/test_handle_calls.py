"""Another Ray application without Trygon calls the models by handle: arrays in and out, and errors it can read."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = Path(__file__).with_name("foreign_application.py")
DEADLINE_S = 120


@pytest.fixture(scope="module")
def models(
    http_client: Any,
    scaling_model: Callable[..., bytes],
    identity_model: Callable[[str], bytes],
) -> Iterator[tuple[str, str]]:
    """A model that multiplies by its version, in two versions; a wide one beside it; and one that answers text."""
    batching = json.dumps({"max_batch_size": 8, "dynamic_batching": {}, "version_policy": {"all": {}}})
    files = {f"file:{version}/model.onnx": scaling_model(version) for version in (1, 2)}
    http_client.load_model("handled", config=batching, files=files)
    http_client.load_model("handled_wide", config=batching, files={"file:1/model.onnx": scaling_model(3, "columns")})
    http_client.load_model("handled_text", config="{}", files={"file:1/model.onnx": identity_model("BYTES")})
    yield "handled", "handled_text"
    for name in ("handled", "handled_wide", "handled_text"):
        http_client.unload_model(name)


@pytest.fixture(scope="module")
def found(server: Any, models: tuple[str, str]) -> dict[str, Any]:
    """What the other application printed."""
    program = subprocess.run(  # noqa: S603 - the program beside this file
        [sys.executable, str(PROGRAM), server.ray_address, *models],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    return dict(json.loads(program.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("call", "factor"),
    [
        ("newest", 2),
        ("version", 1),
        ("version as text", 2),
        ("timeout that suffices", 2),
    ],
)
def test_arrays_come_back_from_the_version_that_was_asked(found: dict[str, Any], call: str, factor: float) -> None:
    assert found[call]["OUTPUT0"] == {
        "shape": [1, 4],
        "dtype": "float32",
        "writable": True,
        "first": [factor] * 4,
        "sum": 4 * factor,
    }


def test_a_driver_calls_as_a_deployment_does(found: dict[str, Any]) -> None:
    assert (found["driver"]["shape"], found["driver"]["first"]) == ([1, 4], [2.0] * 4)


def test_twenty_megabytes_come_and_go(found: dict[str, Any]) -> None:
    answer = found["large"]["OUTPUT0"]
    assert (answer["shape"], answer["sum"]) == ([5, 1024 * 1024], 3.0 * 5 * 1024 * 1024)


def test_strings_are_arrays_of_bytes(found: dict[str, Any]) -> None:
    assert found["strings"]["OUTPUT0"]["first"] == ["größe", "", "x"]
    assert found["strings"]["OUTPUT0"]["dtype"] == "object"
    assert found["list of strings"]["OUTPUT0"]["first"] == ["a", "b"]


def test_each_of_many_calls_at_once_gets_its_own_answer(found: dict[str, Any]) -> None:
    assert found["many"] == [2.0 * number for number in range(200)]


@pytest.mark.parametrize(
    ("call", "kind", "code", "http_status"),
    [
        ("unknown model", "LookupError", "MODEL_NOT_FOUND", 404),
        ("unknown version", "LookupError", "MODEL_VERSION_NOT_FOUND", 404),
        ("bad version", "ValueError", "MODEL_VERSION_INVALID", 400),
        ("wrong shape", "ValueError", "TENSOR_SHAPE_MISMATCH", 400),
        ("ragged", "ValueError", "TENSOR_DATA_INVALID", 400),
        ("lists", "ValueError", "TENSOR_DATATYPE_MISMATCH", 400),
        ("unknown input", "ValueError", "TENSOR_INPUT_UNKNOWN", 400),
        ("unknown output", "ValueError", "TENSOR_OUTPUT_UNKNOWN", 400),
        ("no inputs", "ValueError", "TENSOR_INPUT_MISSING", 400),
        ("no mapping", "ValueError", "REQUEST_FIELD_INVALID", 400),
        ("negative time", "ValueError", "REQUEST_FIELD_INVALID", 400),
        ("time is over", "TimeoutError", "REQUEST_TIMEOUT", 504),
    ],
)
def test_an_error_is_one_of_pythons_own_with_its_code(
    found: dict[str, Any], call: str, kind: str, code: str, http_status: int
) -> None:
    error = found[call]
    assert kind in error["kinds"]
    assert (error["code"], error["http_status"]) == (code, http_status)
    assert error["retryable"] is (code == "REQUEST_TIMEOUT")
    assert isinstance(error["context"], dict)
    assert code in error["message"]


def test_the_server_goes_on_when_the_other_application_has_gone(found: dict[str, Any], http: httpx.Client) -> None:
    assert found
    assert http.get("/q/health/ready").status_code == 200
    assert http.get("/v2/models/digits_onnx/ready").status_code == 200
