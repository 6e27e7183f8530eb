"""Models come, change and go while the server runs: nothing that serves is lost, and every refusal says why."""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.utils import InferenceServerException

Scale = Callable[[float], bytes]
Begin = Callable[[str], Any]

BATCHING = "max_batch_size: 8 dynamic_batching {}"
CALLERS = 4
RELOADS = 10
MOST_CALLS = 20_000


def _rows(triton: Any, value: float, count: int = 1) -> list[Any]:
    tensor = triton.InferInput("INPUT0", [count, 4], "FP32")
    tensor.set_data_from_numpy(np.full((count, 4), value, np.float32))
    return [tensor]


def factor(client: Any, model: str, version: str = "") -> float:
    """Return what a model multiplies by."""
    triton = triton_grpc if isinstance(client, triton_grpc.InferenceServerClient) else triton_http
    return float(client.infer(model, _rows(triton, 1), model_version=version).as_numpy("OUTPUT0")[0, 0])


def index(client: Any, model: str) -> dict[str, tuple[str, str]]:
    """Return state and reason of each version of a model."""
    entries = [entry for entry in client.get_model_repository_index() if entry["name"] == model]
    return {entry["version"]: (entry["state"], entry["reason"]) for entry in entries}


def test_a_new_folder_is_loaded_and_unloaded(
    http_client: Any, grpc_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    model_folder("fresh").write_version(1, scaling_model(3))
    assert index(http_client, "fresh") == {"1": ("UNAVAILABLE", "unloaded")}
    http_client.load_model("fresh")
    assert index(http_client, "fresh") == {"1": ("READY", "")}
    assert http_client.is_model_ready("fresh")
    assert factor(http_client, "fresh") == factor(grpc_client, "fresh") == 3
    grpc_client.unload_model("fresh")
    assert index(http_client, "fresh") == {"1": ("UNAVAILABLE", "unloaded")}
    assert not http_client.is_model_ready("fresh")
    for client, status in ((http_client, "404"), (grpc_client, "StatusCode.NOT_FOUND")):
        with pytest.raises(InferenceServerException, match="unknown model: 'fresh' is not found") as caught:
            factor(client, "fresh")
        assert caught.value.status() == status
        with pytest.raises(InferenceServerException, match="fresh"):
            client.unload_model("fresh")
    grpc_client.load_model("fresh")
    assert factor(http_client, "fresh") == 3


def test_a_model_without_a_configuration_gets_one(http_client: Any, model_folder: Begin, scaling_model: Scale) -> None:
    model_folder("plain").write_version(1, scaling_model(1))
    http_client.load_model("plain")
    config = http_client.get_model_config("plain")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("plain", "onnxruntime", 4)
    assert http_client.get_model_metadata("plain")["inputs"] == [
        {"name": "INPUT0", "datatype": "FP32", "shape": [-1, 4]}
    ]


def test_a_reload_answers_with_the_new_weights_at_once(
    http_client: Any, grpc_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    folder = model_folder("changing")
    for value in (2, 5, 7):
        folder.write_version(1, scaling_model(value))
        http_client.load_model("changing")
        assert factor(http_client, "changing") == factor(grpc_client, "changing") == value


@pytest.mark.parametrize("fault", ["file", "config"])
def test_a_broken_reload_says_why_and_the_old_version_goes_on(
    http_client: Any, grpc_client: Any, model_folder: Begin, scaling_model: Scale, fault: str
) -> None:
    folder = model_folder(f"fragile_{fault}")
    folder.write_version(1, scaling_model(2))
    http_client.load_model(folder.name)
    if fault == "file":
        folder.write_version(1, b"this is no model")
        expected, status = "Protobuf parsing failed", "400"
    else:
        folder.write_config("max_batch_size: many")
        expected, status = "max_batch_size|config.pbtxt", "400"
    with pytest.raises(InferenceServerException, match=expected) as caught:
        http_client.load_model(folder.name)
    assert caught.value.status() == status
    with pytest.raises(InferenceServerException, match=expected):
        grpc_client.load_model(folder.name)
    assert http_client.is_model_ready(folder.name)
    assert factor(http_client, folder.name) == factor(grpc_client, folder.name) == 2
    assert index(http_client, folder.name)["1"][0] == "READY"
    folder.write_config(BATCHING)
    folder.write_version(1, scaling_model(4))
    http_client.load_model(folder.name)
    assert factor(http_client, folder.name) == 4
    assert index(http_client, folder.name) == {"1": ("READY", "")}


def test_a_model_that_is_none_is_unavailable_with_the_reason_of_the_runtime(
    http: httpx.Client, http_client: Any, grpc_client: Any, model_folder: Begin
) -> None:
    model_folder("nonsense").write_version(1, b"this is no model")
    for client in (http_client, grpc_client):
        with pytest.raises(InferenceServerException, match="Protobuf parsing failed"):
            client.load_model("nonsense")
    state, reason = index(http_client, "nonsense")["1"]
    assert state == "UNAVAILABLE"
    assert "Protobuf parsing failed" in reason
    assert not http_client.is_model_ready("nonsense")
    assert http_client.is_server_ready()
    assert http.get("/q/health/ready").status_code == 200


def test_all_versions_are_served_when_the_policy_says_so(
    http_client: Any, grpc_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    folder = model_folder("versioned")
    folder.write_config(f"{BATCHING} version_policy: {{ all {{}} }}")
    for version in (1, 2, 10):
        folder.write_version(version, scaling_model(version))
    http_client.load_model("versioned")
    assert http_client.get_model_metadata("versioned")["versions"] == ["1", "2", "10"]
    for client in (http_client, grpc_client):
        assert [factor(client, "versioned", version) for version in ("1", "2", "10", "")] == [1, 2, 10, 10]
        with pytest.raises(InferenceServerException, match="3"):
            factor(client, "versioned", "3")
    shutil.rmtree(folder.path / "10")
    http_client.load_model("versioned")
    assert http_client.get_model_metadata("versioned")["versions"] == ["1", "2"]
    assert factor(grpc_client, "versioned") == 2


def test_only_the_versions_of_the_policy_are_served(
    http_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    folder = model_folder("chosen")
    for version in (1, 2, 3):
        folder.write_version(version, scaling_model(version))
    folder.write_config(f"{BATCHING} version_policy: {{ specific {{ versions: [1, 2] }} }}")
    http_client.load_model("chosen")
    assert http_client.get_model_metadata("chosen")["versions"] == ["1", "2"]
    assert not http_client.is_model_ready("chosen", "3")
    folder.write_config(f"{BATCHING} version_policy: {{ latest {{ num_versions: 1 }} }}")
    http_client.load_model("chosen")
    assert http_client.get_model_metadata("chosen")["versions"] == ["3"]
    assert not http_client.is_model_ready("chosen", "1")
    assert factor(http_client, "chosen") == 3


def test_a_bad_version_leaves_the_good_ones_serving(
    http_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    folder = model_folder("half")
    folder.write_config(f"{BATCHING} version_policy: {{ all {{}} }}")
    folder.write_version(1, scaling_model(1))
    http_client.load_model("half")
    folder.write_version(2, b"this is no model")
    with pytest.raises(InferenceServerException, match="Protobuf parsing failed"):
        http_client.load_model("half")
    assert factor(http_client, "half", "1") == factor(http_client, "half") == 1
    assert index(http_client, "half")["1"] == ("READY", "")
    state, reason = index(http_client, "half")["2"]
    assert state == "UNAVAILABLE"
    assert "Protobuf parsing failed" in reason


def test_a_configuration_may_come_with_the_load(
    http_client: Any, grpc_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    folder = model_folder("adjusted")
    folder.write_config(BATCHING)
    folder.write_version(1, scaling_model(2))
    for client in (http_client, grpc_client):
        client.load_model("adjusted", config=json.dumps({"max_batch_size": 3}))
        assert http_client.get_model_config("adjusted")["max_batch_size"] == 3
        with pytest.raises(InferenceServerException, match="3"):
            http_client.infer("adjusted", _rows(triton_http, 1, count=4))
        client.load_model("adjusted")
        assert http_client.get_model_config("adjusted")["max_batch_size"] == 8


def test_files_may_come_with_the_load(http_client: Any, grpc_client: Any, scaling_model: Scale) -> None:
    config = json.dumps({"max_batch_size": 8, "version_policy": {"all": {}}})
    for client, first in ((http_client, 3.0), (grpc_client, 5.0)):
        files = {"file:1/model.onnx": scaling_model(first), "file:2/model.onnx": scaling_model(first + 1)}
        client.load_model("sent", config=config, files=files)
        assert factor(http_client, "sent", "1") == first
        assert factor(http_client, "sent", "2") == first + 1
    with pytest.raises(InferenceServerException, match="Protobuf parsing failed"):
        http_client.load_model("sent", config=config, files={"file:1/model.onnx": b"this is no model"})
    assert factor(grpc_client, "sent") == 6
    http_client.unload_model("sent")
    assert index(http_client, "sent") == {}


@pytest.mark.parametrize("way", ["in_place", "as_new_versions"])
def test_no_inference_fails_while_a_model_is_reloaded(
    server: Any, http_client: Any, model_folder: Begin, scaling_model: Scale, way: str
) -> None:
    folder = model_folder(f"busy_{way}")
    folder.write_config(BATCHING)
    folder.write_version(1, scaling_model(1))
    http_client.load_model(folder.name)
    done = threading.Event()

    def call(number: int) -> list[float]:
        """Call until all is done; return each factor that was seen, in order."""
        triton = (triton_http, triton_grpc)[number % 2]
        address = server.http_url.removeprefix("http://") if triton is triton_http else server.grpc_url
        seen: list[float] = []
        with triton.InferenceServerClient(address) as client:
            for value in range(1, MOST_CALLS):
                if done.is_set():
                    return seen
                answer = client.infer(folder.name, _rows(triton, value)).as_numpy("OUTPUT0")
                assert np.all(answer == answer[0, 0])
                seen.append(float(answer[0, 0]) / value)
        return seen

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call, number) for number in range(CALLERS)]
        try:
            for value in range(2, RELOADS + 2):
                folder.write_version(1 if way == "in_place" else value, scaling_model(2**value))
                http_client.load_model(folder.name)
                assert factor(http_client, folder.name) == 2**value
        finally:
            done.set()
        seen = [caller.result() for caller in callers]
    for factors in seen:
        assert factors == sorted(factors)
        assert len(set(factors)) > 1
        assert set(factors) <= {1.0, *(2.0**value for value in range(2, RELOADS + 2))}


def test_many_models_load_and_unload_at_once(
    server: Any, http_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    folders = [model_folder(f"crowd_{number}") for number in range(8)]
    for number, folder in enumerate(folders):
        folder.write_version(1, scaling_model(number))

    def come_and_go(folder: Any) -> list[float]:
        found = []
        with triton_grpc.InferenceServerClient(server.grpc_url) as client:
            for _ in range(3):
                client.load_model(folder.name)
                found.append(factor(client, folder.name))
                client.unload_model(folder.name)
        return found

    with ThreadPoolExecutor(len(folders)) as pool:
        for number, found in enumerate(pool.map(come_and_go, folders)):
            assert found == [number] * 3
    assert {state for folder in folders for state, _ in index(http_client, folder.name).values()} == {"UNAVAILABLE"}


def test_the_same_model_may_be_loaded_by_many_at_once(
    server: Any, http_client: Any, model_folder: Begin, scaling_model: Scale
) -> None:
    model_folder("popular").write_version(1, scaling_model(6))

    def load(_: int) -> float:
        with triton_grpc.InferenceServerClient(server.grpc_url) as client:
            client.load_model("popular")
            return factor(client, "popular")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(load, range(16))) == {6}
    assert index(http_client, "popular") == {"1": ("READY", "")}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"parameters": {"config": 5}}, "REQUEST_PARAMETER_INVALID"),
        ({"parameters": {"config": "{"}}, "MODEL_CONFIG_INVALID"),
        ({"parameters": {"config": '{"max_batch_size": "x"}'}}, "MODEL_CONFIG_INVALID"),
        ({"parameters": {"config": "{}", "file:../../x": ""}}, "REQUEST_PARAMETER_INVALID"),
        ({"parameters": {"config": "{}", "file:/etc/x": ""}}, "REQUEST_PARAMETER_INVALID"),
        ({"parameters": {"config": "{}", "file:1/model.onnx": "*"}}, "REQUEST_PARAMETER_INVALID"),
        ({"parameters": {"file:1/model.onnx": ""}}, "REQUEST_PARAMETER_INVALID"),
        ({"parameters": {"unknown": True}}, "REQUEST_PARAMETER_INVALID"),
        ({"parameters": {"config": '{"backend": "nosuch"}'}}, "MODEL_BACKEND_UNKNOWN"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused_and_changes_nothing(
    http: httpx.Client, http_client: Any, body: dict[str, Any], code: str
) -> None:
    response = http.post("/v2/repository/models/digits_onnx/load", json=body)
    assert (response.status_code, response.json()["errorCode"]) == (400, code)
    assert index(http_client, "digits_onnx") == {"1": ("READY", "")}
