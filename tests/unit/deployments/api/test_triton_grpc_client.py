"""The real tritonclient.grpc, synchronous and asyncio, against a server: see conftest.py for what it must serve."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from queue import Queue
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import aio
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
    "FP32": np.array([[np.nan, np.inf]], np.float32),
    "FP64": np.array([[0.1, 1.7e308]], np.float64),
    "BF16": np.array([[0.5, -3]], ml_dtypes.bfloat16),
    "BYTES": np.array([["größe\x00".encode(), b""]], np.object_),
}


def _input(values: Any, datatype: str = "FP32") -> triton.InferInput:
    tensor = triton.InferInput("INPUT0", list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def _row(value: float) -> list[triton.InferInput]:
    return [_input(np.full((1, 4), value, np.float32))]


@pytest.fixture
def client(grpc_address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(grpc_address) as client:
        yield client


@pytest.fixture
async def aio_client(grpc_address: str) -> AsyncIterator[aio.InferenceServerClient]:
    async with aio.InferenceServerClient(grpc_address) as client:
        yield client


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_travels(client: triton.InferenceServerClient, datatype: str) -> None:
    values = VALUES[datatype]
    result = client.infer(f"identity_{datatype.lower()}", [_input(values, datatype)], request_id="r")
    answered = result.as_numpy("OUTPUT0")
    assert (answered.shape, answered.dtype) == (values.shape, values.dtype)
    assert answered.tolist() == values.tolist() or np.array_equal(answered, values, equal_nan=True)
    assert result.get_response().id == "r"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_messages_may_be_compressed(client: triton.InferenceServerClient, algorithm: str) -> None:
    values = np.zeros((1, 5000), np.float32)
    result = client.infer("identity_fp32", [_input(values)], compression_algorithm=algorithm)
    assert np.array_equal(result.as_numpy("OUTPUT0"), values)


def test_classes_come_with_scores_and_labels(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("OUTPUT0", class_count=9)]
    values = np.array([[1, 4, 3, 2]], np.float32)
    found = client.infer("double", [_input(values)], outputs=outputs).as_numpy("OUTPUT0")
    assert found.tolist() == [[b"8.000000:1:dog", b"6.000000:2:fish", b"4.000000:3", b"2.000000:0:cat"]]


def test_health_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert "statistics" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("double", as_json=True)
    assert metadata["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert client.get_model_config("double").config.max_batch_size == 8


def test_statistics_count_what_was_inferred(client: triton.InferenceServerClient) -> None:
    def rows() -> int:
        (statistics,) = client.get_inference_statistics("double", "1").model_stats
        return int(statistics.inference_count)

    before = rows()
    client.infer("double", [_input(np.zeros((3, 4), np.float32))])
    assert rows() == before + 3
    assert len(client.get_inference_statistics().model_stats) > 1


def test_the_repository_is_listed(client: triton.InferenceServerClient) -> None:
    entries = {entry.name: entry for entry in client.get_model_repository_index().models}
    assert (entries["double"].version, entries["double"].state) == ("1", "READY")


def test_errors_reach_the_caller_with_text_and_status(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'nosuch' is not found") as caught:
        client.infer("nosuch", _row(1))
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="shape") as caught:
        client.infer("double", [_input(np.zeros((1, 5), np.float32))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_what_is_not_there_is_unimplemented(client: triton.InferenceServerClient) -> None:
    calls = [
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.get_trace_settings,
        client.get_log_settings,
        client.unregister_system_shared_memory,
        client.unregister_cuda_shared_memory,
        lambda: client.register_system_shared_memory("r", "/r", 8),
        lambda: client.register_cuda_shared_memory("r", b"", 0, 8),
        lambda: client.infer("double", _row(1), sequence_id=5, sequence_start=True),
    ]
    for call in calls:
        with pytest.raises(InferenceServerException, match="not supported") as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_priority_timeout_and_own_parameters_are_taken(client: triton.InferenceServerClient) -> None:
    result = client.infer("double", _row(1), priority=1, timeout=60_000_000, parameters={"mine": 1.5})
    assert result.as_numpy("OUTPUT0").tolist() == [[2, 2, 2, 2]]


def test_a_stream_answers_every_request_under_its_id(client: triton.InferenceServerClient) -> None:
    answers: Queue[tuple[Any, Any]] = Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(1000):
        client.async_stream_infer(
            "double", _row(index), request_id=str(index), enable_empty_final_response=bool(index % 2)
        )
    client.stop_stream()
    assert answers.qsize() == 1000
    found = {}
    for result, error in answers.queue:
        assert error is None
        response = result.get_response()
        found[int(response.id)] = float(result.as_numpy("OUTPUT0")[0, 0])
        assert response.parameters["triton_final_response"].bool_param
    assert found == {index: 2.0 * index for index in range(1000)}


def test_a_stream_goes_on_after_an_error(client: triton.InferenceServerClient) -> None:
    answers: Queue[tuple[Any, Any]] = Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("nosuch", _row(1), request_id="bad")
    client.async_stream_infer("double", _row(3), request_id="good")
    client.stop_stream()
    errors = [error for _, error in answers.queue if error]
    (result,) = [result for result, error in answers.queue if not error]
    assert "unknown model: 'nosuch' is not found" in str(errors[0])
    assert result.as_numpy("OUTPUT0")[0, 0] == 6


def test_a_stream_may_be_cancelled_and_the_server_goes_on(client: triton.InferenceServerClient) -> None:
    client.start_stream(lambda **_: None)
    for index in range(50):
        client.async_stream_infer("double", _row(index))
    client.stop_stream(cancel_requests=True)
    assert client.infer("double", _row(1)).as_numpy("OUTPUT0")[0, 0] == 2


async def test_the_asyncio_client_infers_and_streams(aio_client: aio.InferenceServerClient) -> None:
    results = await asyncio.gather(*(aio_client.infer("double", _row(index)) for index in range(50)))
    assert [result.as_numpy("OUTPUT0")[0, 0] for result in results] == [2 * index for index in range(50)]

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for index in range(100):
            yield {"model_name": "double", "inputs": _row(index), "request_id": str(index)}

    found = set()
    async for result, error in aio_client.stream_infer(requests()):
        assert error is None
        found.add(result.get_response().id)
    assert found == {str(index) for index in range(100)}


async def test_the_asyncio_client_asks_for_the_rest(aio_client: aio.InferenceServerClient) -> None:
    assert await aio_client.is_server_ready()
    assert await aio_client.is_model_ready("double")
    assert (await aio_client.get_model_config("double")).config.name == "double"
    with pytest.raises(InferenceServerException, match="not found"):
        await aio_client.get_model_metadata("nosuch")
