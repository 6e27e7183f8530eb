"""Poll mode: the server follows its repository, folder by folder, without being asked."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

BATCHING = "max_batch_size: 8 dynamic_batching {}"

Eventually = Callable[[Callable[[], bool]], None]
Scale = Callable[[float], bytes]


class PolledServer:
    """A server in poll mode and its repository."""

    def __init__(self, repository: Path, http: httpx.Client) -> None:
        self.repository = repository
        self._http = http

    def factor(self, model: str) -> float | None:
        """Return what a model multiplies by; None while it does not answer."""
        request = {"inputs": [{"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [1] * 4}]}
        response = self._http.post(f"/v2/models/{model}/infer", json=request)
        return float(response.json()["outputs"][0]["data"][0]) if response.status_code == 200 else None

    def states(self, model: str) -> dict[str, tuple[str, str]]:
        """Return state and reason of each version."""
        entries = self._http.post("/v2/repository/index", json={}).json()
        return {entry["version"]: (entry["state"], entry["reason"]) for entry in entries if entry["name"] == model}

    def is_ready(self) -> bool:
        return self._http.get("/q/health/ready").status_code == 200

    def post(self, path: str) -> httpx.Response:
        return self._http.post(path, json={})


@pytest.fixture(scope="module")
def polled(
    start_server: Callable[..., Any],
    spare_ports: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
    begin_folder: Callable[[Path], Any],
    scaling_model: Scale,
) -> Iterator[PolledServer]:
    root = tmp_path_factory.mktemp("poll")
    (root / "models").mkdir()
    first = begin_folder(root / "models" / "first")
    first.write_config(BATCHING)
    first.write_version(1, scaling_model(2))
    command = start_server(
        root / "data",
        spare_ports,
        *("--model-repository", str(root / "models")),
        *("--model-control-mode", "poll", "--repository-poll-secs", "0.2"),
    )
    command.wait_until_ready()
    with httpx.Client(base_url=command.http_url, timeout=60) as client:
        yield PolledServer(root / "models", client)
    assert command.end() == 0, command.output
    assert command.left_over_processes() == []


@pytest.fixture
def folder(polled: PolledServer, begin_folder: Callable[[Path], Any]) -> Callable[[str], Any]:
    return lambda name: begin_folder(polled.repository / name)


def test_what_was_there_at_the_start_is_served(polled: PolledServer) -> None:
    assert polled.factor("first") == 2


def test_a_new_folder_is_loaded_a_changed_one_reloaded_and_a_removed_one_unloaded(
    polled: PolledServer, folder: Callable[[str], Any], scaling_model: Scale, eventually: Eventually
) -> None:
    model = folder("coming")
    model.write_version(1, scaling_model(3))
    eventually(lambda: polled.factor("coming") == 3)
    model.write_version(1, scaling_model(5))
    eventually(lambda: polled.factor("coming") == 5)
    model.write_version(2, scaling_model(7))
    eventually(lambda: polled.factor("coming") == 7)
    eventually(lambda: polled.states("coming").keys() <= {"2"})
    model.write_config(f"{BATCHING} version_policy: {{ all {{}} }}")
    eventually(lambda: {state for state, _ in polled.states("coming").values()} == {"READY"})
    eventually(lambda: polled.states("coming").keys() == {"1", "2"})
    shutil.rmtree(model.path)
    eventually(lambda: polled.states("coming") == {})
    assert polled.factor("coming") is None
    assert polled.factor("first") == 2


def test_a_broken_folder_is_unavailable_with_the_reason_until_it_is_mended(
    polled: PolledServer, folder: Callable[[str], Any], scaling_model: Scale, eventually: Eventually
) -> None:
    model = folder("broken")
    model.write_version(1, b"this is no model")
    eventually(lambda: "Protobuf parsing failed" in polled.states("broken").get("1", ("", ""))[1])
    assert polled.states("broken")["1"][0] == "UNAVAILABLE"
    assert polled.factor("broken") is None
    assert polled.factor("first") == 2
    eventually(lambda: not polled.is_ready())
    model.write_version(1, scaling_model(4))
    eventually(lambda: polled.factor("broken") == 4)
    eventually(polled.is_ready)
    shutil.rmtree(model.path)


@pytest.mark.parametrize("fault", ["file", "config"])
def test_a_change_that_breaks_a_model_leaves_the_old_one_serving(
    polled: PolledServer, folder: Callable[[str], Any], scaling_model: Scale, eventually: Eventually, fault: str
) -> None:
    model = folder(f"breaking_{fault}")
    model.write_config(BATCHING)
    model.write_version(1, scaling_model(6))
    eventually(lambda: polled.factor(model.name) == 6)
    if fault == "file":
        model.write_version(1, b"this is no model")
    else:
        model.write_config("max_batch_size: many")
    eventually(lambda: polled.states(model.name)["1"][1] != "")
    assert polled.states(model.name)["1"][0] == "READY"
    assert polled.factor(model.name) == 6
    assert polled.is_ready()
    model.write_config(BATCHING)
    model.write_version(1, scaling_model(8))
    eventually(lambda: polled.factor(model.name) == 8)
    eventually(lambda: polled.states(model.name) == {"1": ("READY", "")})
    shutil.rmtree(model.path)


def test_callers_do_not_decide_what_is_loaded(polled: PolledServer) -> None:
    for verb in ("load", "unload"):
        response = polled.post(f"/v2/repository/models/first/{verb}")
        assert (response.status_code, response.json()["errorCode"]) == (400, "MODEL_CONTROL_DISABLED")
    assert np.isclose(polled.factor("first") or 0, 2)
