"""The real tritonclient.http, synchronous and asyncio, against a server: see conftest.py for what it must serve."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -65504]], np.float16),
    "FP32": np.array([[0.1, 3.4e38]], np.float32),
    "FP64": np.array([[0.1, 1.7e308]], np.float64),
    "BF16": np.array([[0.5, -3]], ml_dtypes.bfloat16),
    "BYTES": np.array([["größe", ""]], np.object_),
}


def _input(values: Any, datatype: str, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("INPUT0", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def _same(answered: Any, values: Any, datatype: str) -> bool:
    if datatype == "BYTES":
        found = [item if isinstance(item, str) else item.decode() for item in answered.ravel()]
        return answered.shape == values.shape and found == values.ravel().tolist()
    return answered.dtype == values.dtype and np.array_equal(answered, values)


@pytest.fixture
def client(http_address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(http_address) as client:
        yield client


@pytest.fixture
async def aio_client(http_address: str) -> AsyncIterator[aio.InferenceServerClient]:
    async with aio.InferenceServerClient(http_address) as client:
        yield client


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_travels_as_binary_data(client: triton.InferenceServerClient, datatype: str) -> None:
    result = client.infer(f"identity_{datatype.lower()}", [_input(VALUES[datatype], datatype)], request_id="r")
    assert _same(result.as_numpy("OUTPUT0"), VALUES[datatype], datatype)
    assert result.get_response()["id"] == "r"


@pytest.mark.parametrize("datatype", [name for name in VALUES if name not in {"FP16", "BF16"}])
def test_every_datatype_that_json_has_travels_as_json(client: triton.InferenceServerClient, datatype: str) -> None:
    result = client.infer(
        f"identity_{datatype.lower()}",
        [_input(VALUES[datatype], datatype, binary=False)],
        outputs=[triton.InferRequestedOutput("OUTPUT0", binary_data=False)],
    )
    assert _same(result.as_numpy("OUTPUT0"), VALUES[datatype], datatype)


@pytest.mark.parametrize("asked", ["gzip", "deflate", None])
@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
def test_requests_and_answers_may_be_compressed(
    client: triton.InferenceServerClient, sent: str | None, asked: str | None
) -> None:
    values = np.zeros((1, 5000), np.float32)
    result = client.infer(
        "identity_fp32",
        [_input(values, "FP32")],
        request_compression_algorithm=sent,
        response_compression_algorithm=asked,
    )
    assert np.array_equal(result.as_numpy("OUTPUT0"), values)


def test_an_empty_tensor_comes_back_empty(client: triton.InferenceServerClient) -> None:
    result = client.infer("identity_fp32", [_input(np.zeros((0, 3), np.float32), "FP32")])
    assert result.as_numpy("OUTPUT0").shape == (0, 3)


@pytest.mark.parametrize("binary", [True, False])
def test_classes_come_with_scores_and_labels(client: triton.InferenceServerClient, binary: bool) -> None:  # noqa: FBT001  pytest passes parameters by name
    values = np.array([[1, 4, 3, 2], [0.5, 0, 0, 9]], np.float32)
    output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary, class_count=2)
    found = client.infer("double", [_input(values, "FP32")], outputs=[output]).as_numpy("OUTPUT0")
    assert [[item if isinstance(item, str) else item.decode() for item in row] for row in found] == [
        ["8.000000:1:dog", "6.000000:2:fish"],
        ["18.000000:3", "1.000000:0:cat"],
    ]


def test_many_requests_on_several_connections(http_address: str) -> None:
    with triton.InferenceServerClient(http_address, concurrency=4) as client:
        pending = [
            (index, client.async_infer("double", [_input(np.full((1, 4), index, np.float32), "FP32")]))
            for index in range(100)
        ]
        for index, request in pending:
            assert request.get_result().as_numpy("OUTPUT0")[0, 0] == 2 * index


def test_health_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert client.is_model_ready("double", "1")
    assert not client.is_model_ready("nosuch")
    assert not client.is_model_ready("double", "99")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("double")
    assert metadata["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_config("double")["max_batch_size"] == 8


def test_statistics_count_what_was_inferred(client: triton.InferenceServerClient) -> None:
    def rows() -> int:
        (statistics,) = client.get_inference_statistics("double", "1")["model_stats"]
        return int(statistics["inference_count"])

    before = rows()
    client.infer("double", [_input(np.zeros((3, 4), np.float32), "FP32")])
    assert rows() == before + 3
    assert len(client.get_inference_statistics()["model_stats"]) > 1


def test_the_repository_is_listed(client: triton.InferenceServerClient) -> None:
    entries = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert entries["double"] == {"name": "double", "version": "1", "state": "READY", "reason": ""}


@pytest.mark.parametrize(
    ("model", "values", "message", "status"),
    [
        ("nosuch", np.zeros((1, 4), np.float32), "unknown model: 'nosuch' is not found", "404"),
        ("double", np.zeros((1, 5), np.float32), "shape", "400"),
    ],
)
def test_errors_reach_the_caller_with_text_and_status(
    client: triton.InferenceServerClient, model: str, values: Any, message: str, status: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(model, [_input(values, "FP32")])
    assert caught.value.status() == status


def test_sequences_and_shared_memory_are_refused(client: triton.InferenceServerClient) -> None:
    tensor = _input(np.zeros((1, 4), np.float32), "FP32")
    with pytest.raises(InferenceServerException, match="sequence_id"):
        client.infer("double", [tensor], sequence_id=5, sequence_start=True)
    with pytest.raises(InferenceServerException, match="not supported"):
        client.get_system_shared_memory_status()
    tensor.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared_memory"):
        client.infer("double", [tensor])


def test_priority_timeout_and_own_parameters_are_taken(client: triton.InferenceServerClient) -> None:
    tensor = _input(np.ones((1, 4), np.float32), "FP32")
    result = client.infer("double", [tensor], priority=1, timeout=60_000_000, parameters={"mine": 1.5})
    assert result.as_numpy("OUTPUT0").tolist() == [[2, 2, 2, 2]]


async def test_the_asyncio_client_infers(aio_client: aio.InferenceServerClient) -> None:
    values = np.zeros((1, 5000), np.float32)
    for algorithm in ("gzip", "deflate", None):
        result = await aio_client.infer(
            "identity_fp32",
            [_input(values, "FP32")],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert np.array_equal(result.as_numpy("OUTPUT0"), values)


async def test_the_asyncio_client_asks_for_the_rest(aio_client: aio.InferenceServerClient) -> None:
    assert await aio_client.is_server_ready()
    assert await aio_client.is_model_ready("double")
    assert (await aio_client.get_model_metadata("double"))["name"] == "double"
    assert (await aio_client.get_model_config("double"))["max_batch_size"] == 8
    assert json.dumps(await aio_client.get_model_repository_index())
    with pytest.raises(InferenceServerException, match="not found"):
        await aio_client.get_model_metadata("nosuch")
