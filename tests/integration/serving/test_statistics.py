"""Statistics that add up: what was sent is what is counted, over both protocols."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.utils import InferenceServerException

REQUESTS = 200
THREADS = 8
DURATIONS = ("queue", "compute_input", "compute_infer", "compute_output")

# Requests of 1 to 4 rows.
SIZES = [number % 4 + 1 for number in range(REQUESTS)]


def _input(triton: Any, values: Any, datatype: str) -> list[Any]:
    tensor = triton.InferInput("INPUT0", list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return [tensor]


def _statistics(http_client: Any, grpc_client: Any, model: str, version: str = "") -> dict[str, Any]:
    """Return a version's statistics, which are equal over HTTP and gRPC; protobuf's JSON has text for 64 bits."""
    (found,) = http_client.get_inference_statistics(model, version)["model_stats"]
    (message,) = grpc_client.get_inference_statistics(model, version).model_stats
    for name in ("last_inference", "inference_count", "execution_count"):
        assert found[name] == getattr(message, name)
    for name, duration in found["inference_stats"].items():
        other = getattr(message.inference_stats, name)
        assert duration == {"count": other.count, "ns": other.ns}
    batches = {batch.batch_size: batch.compute_infer.count for batch in message.batch_stats}
    assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in found["batch_stats"]} == batches
    return dict(found)


def test_every_request_row_and_execution_is_counted_once(
    server: Any,
    http_client: Any,
    grpc_client: Any,
    model_folder: Callable[[str], Any],
    scaling_model: Callable[[float], bytes],
) -> None:
    folder = model_folder("counted")
    folder.write_config("max_batch_size: 8 dynamic_batching {}")
    folder.write_version(1, scaling_model(2))
    http_client.load_model("counted")
    began_ms = time.time_ns() // 1_000_000

    def send(thread: int) -> None:
        triton, address = (
            (triton_http, server.http_url.removeprefix("http://")) if thread % 2 else (triton_grpc, server.grpc_url)
        )
        with triton.InferenceServerClient(address) as client:
            for size in SIZES[thread::THREADS]:
                client.infer("counted", _input(triton, np.ones((size, 4), np.float32), "FP32"))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(send, range(THREADS)))

    found = _statistics(http_client, grpc_client, "counted")
    counts = {name: duration["count"] for name, duration in found["inference_stats"].items()}
    executions = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in found["batch_stats"]}
    assert (found["name"], found["version"]) == ("counted", "1")
    assert found["inference_count"] == sum(SIZES)
    assert counts == dict.fromkeys(("success", *DURATIONS), REQUESTS) | {"fail": 0, "cache_hit": 0, "cache_miss": 0}
    assert found["execution_count"] == sum(executions.values())
    assert sum(size * count for size, count in executions.items()) == sum(SIZES)
    assert 1 <= min(executions) <= max(executions) <= 8
    assert began_ms <= found["last_inference"] <= time.time_ns() // 1_000_000
    spent = {name: duration["ns"] for name, duration in found["inference_stats"].items()}
    assert 0 < sum(spent[name] for name in DURATIONS) <= spent["success"]


def test_failures_are_counted_and_harm_no_neighbour(
    http_client: Any, grpc_client: Any, model_folder: Callable[[str], Any], lookup_model: bytes
) -> None:
    folder = model_folder("failing")
    folder.write_config("max_batch_size: 8 dynamic_batching {}")
    folder.write_version(1, lookup_model)
    http_client.load_model("failing")

    for place in (0, 1, 99, 2, 3, 99, 99, 0):
        values = np.array([[place]], np.int64)
        for client, triton in ((http_client, triton_http), (grpc_client, triton_grpc)):
            if place < 4:
                answer = client.infer("failing", _input(triton, values, "INT64")).as_numpy("OUTPUT0")
                assert answer.tolist() == [[10 * place]]
            else:
                with pytest.raises(InferenceServerException, match="indices element out of data bounds"):
                    client.infer("failing", _input(triton, values, "INT64"))

    counted = _statistics(http_client, grpc_client, "failing")
    assert counted["inference_stats"]["fail"]["count"] == 6
    assert counted["inference_stats"]["success"]["count"] == 10
    assert counted["inference_count"] == counted["execution_count"] == 10


def test_each_version_counts_for_itself(
    http_client: Any,
    grpc_client: Any,
    model_folder: Callable[[str], Any],
    scaling_model: Callable[[float], bytes],
) -> None:
    folder = model_folder("counted_versions")
    folder.write_config("max_batch_size: 8 version_policy: { all {} }")
    for version in (1, 2):
        folder.write_version(version, scaling_model(version))
    http_client.load_model("counted_versions")
    values = _input(triton_http, np.ones((3, 4), np.float32), "FP32")
    http_client.infer("counted_versions", values, model_version="1")
    for _ in range(2):
        http_client.infer("counted_versions", values)
    assert _statistics(http_client, grpc_client, "counted_versions", "1")["inference_count"] == 3
    assert _statistics(http_client, grpc_client, "counted_versions", "2")["inference_count"] == 6
    everything = http_client.get_inference_statistics("counted_versions")["model_stats"]
    assert [entry["version"] for entry in everything] == ["1", "2"]
