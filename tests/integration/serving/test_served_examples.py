"""The examples on the real server: every client and format gives the same answer, and the server describes itself."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.grpc import aio as triton_grpc_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.http import aio as triton_http_aio
from tritonclient.utils import InferenceServerException

FORMATS = ("digits_onnx", "digits_tensorflow", "digits_litert")


def _image(triton: Any, rows: Any) -> list[Any]:
    tensor = triton.InferInput("image", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return [tensor]


@pytest.fixture
def stub(server: Any) -> Iterator[health_pb2_grpc.HealthStub]:
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("model", FORMATS)
async def test_four_clients_and_plain_json_read_the_same_digit(
    server: Any, http_client: Any, grpc_client: Any, digit: Any, model: str
) -> None:
    answers = [
        http_client.infer(model, _image(triton_http, digit)).as_numpy("probabilities"),
        grpc_client.infer(model, _image(triton_grpc, digit)).as_numpy("probabilities"),
    ]
    async with triton_http_aio.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        answers.append((await client.infer(model, _image(triton_http, digit))).as_numpy("probabilities"))
    async with triton_grpc_aio.InferenceServerClient(server.grpc_url) as client:
        answers.append((await client.infer(model, _image(triton_grpc, digit))).as_numpy("probabilities"))
    request = {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": digit.tolist()}]}
    async with httpx.AsyncClient(base_url=server.http_url) as plain:
        (output,) = (await plain.post(f"/v2/models/{model}/infer", json=request)).json()["outputs"]
    answers.append(np.array(output["data"], np.float32).reshape(output["shape"]))
    for answer in answers:
        assert (answer.shape, answer.dtype, answer.argmax()) == ((1, 10), np.float32, 9)
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


def test_the_three_formats_agree_on_a_full_batch(grpc_client: Any, digit: Any) -> None:
    rows = np.random.default_rng(1).uniform(0, 1, (31, 64)).astype(np.float32)
    batch = np.concatenate([digit, rows])
    first, *others = (
        grpc_client.infer(model, _image(triton_grpc, batch)).as_numpy("probabilities") for model in FORMATS
    )
    assert first.shape == (32, 10)
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)


@pytest.mark.parametrize("model", FORMATS)
def test_each_caller_gets_its_own_rows_back_from_shared_batches(server: Any, digit: Any, model: str) -> None:
    inks = [digit * (number + 1) / 40 for number in range(40)]

    def infer(image: Any) -> Any:
        with triton_grpc.InferenceServerClient(server.grpc_url) as client:
            return client.infer(model, _image(triton_grpc, image)).as_numpy("probabilities")

    alone = [infer(image) for image in inks]
    with ThreadPoolExecutor(8) as pool:
        for answer, expected in zip(pool.map(infer, inks), alone, strict=True):
            np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_a_version_an_output_and_an_id_may_be_named(http_client: Any, grpc_client: Any, digit: Any) -> None:
    for client, triton in ((http_client, triton_http), (grpc_client, triton_grpc)):
        result = client.infer(
            "digits_onnx",
            _image(triton, digit),
            model_version="1",
            outputs=[triton.InferRequestedOutput("probabilities")],
            request_id="my-id",
        )
        answer = result.get_response(as_json=True) if triton is triton_grpc else result.get_response()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits_onnx", "1", "my-id")


@pytest.mark.parametrize("model", FORMATS)
def test_classes_carry_the_labels_of_the_model(http_client: Any, grpc_client: Any, digit: Any, model: str) -> None:
    for client, triton in ((http_client, triton_http), (grpc_client, triton_grpc)):
        outputs = [triton.InferRequestedOutput("probabilities", class_count=3)]
        classes = client.infer(model, _image(triton, digit), outputs=outputs).as_numpy("probabilities")
        score, index, label = classes[0, 0].decode().split(":")
        assert (classes.shape, index, label) == ((1, 3), "9", "9")
        assert 0.5 < float(score) <= 1


@pytest.mark.parametrize("model", FORMATS)
def test_a_stream_answers_each_of_many_requests(grpc_client: Any, digit: Any, model: str) -> None:
    answers: Queue[tuple[Any, Any]] = Queue()
    grpc_client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(300):
        grpc_client.async_stream_infer(model, _image(triton_grpc, digit), request_id=str(number))
    grpc_client.stop_stream()
    assert [error for _, error in answers.queue if error] == []
    assert {result.get_response().id for result, _ in answers.queue} == {str(number) for number in range(300)}
    assert {result.as_numpy("probabilities").argmax() for result, _ in answers.queue} == {9}


def test_the_call_order_of_perf_analyzer_goes_through(server: Any, grpc_client: Any, digit: Any) -> None:
    metadata = grpc_client.get_model_metadata("digits_onnx", as_json=True)
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "64"]}]
    config = grpc_client.get_model_config("digits_onnx", as_json=True)["config"]
    assert config["max_batch_size"] == 32
    assert "statistics" in grpc_client.get_server_metadata(as_json=True)["extensions"]

    def requests() -> int:
        (statistics,) = grpc_client.get_inference_statistics("digits_onnx").model_stats
        return int(statistics.inference_stats.success.count)

    before = requests()
    request = service_pb2.ModelInferRequest(model_name="digits_onnx", raw_input_contents=[digit.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=[1, 64])
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(5):
            assert len(stub.ModelInfer(request).raw_output_contents) == 1
    assert requests() == before + 5


def test_grpc_health_knows_the_server_and_its_service(stub: health_pb2_grpc.HealthStub) -> None:
    for service in ("", "inference.GRPCInferenceService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nosuch"))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/q/health/live", {"status": "UP"}),
        ("/q/health/ready", {"status": "UP"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/digits_onnx/ready", {"name": "digits_onnx", "ready": True}),
        ("/v2", {"name": "trygon"}),
    ],
)
def test_probes_answer_with_json(http: httpx.Client, path: str, expected: dict[str, Any]) -> None:
    response = http.get(path)
    assert response.status_code == 200
    assert expected.items() <= response.json().items()


def test_openapi_lists_the_routes_of_the_protocol(http: httpx.Client) -> None:
    paths = http.get("/openapi").json()["paths"]
    assert {"/v2/models/{model}/infer", "/v2/repository/index", "/q/health/ready"} <= paths.keys()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/digits_onnx/generate"),
        ("POST", "/v2/models/digits_onnx/versions/1/generate_stream"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/models/digits_onnx/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/r/register"),
    ],
)
def test_what_is_not_there_is_not_implemented(http: httpx.Client, method: str, path: str) -> None:
    response = http.request(method, path, json={})
    assert (response.status_code, response.json()["errorCode"]) == (501, "REQUEST_FEATURE_UNSUPPORTED")


def test_an_error_has_the_whole_contract(http: httpx.Client) -> None:
    response = http.post("/v2/models/nosuch/infer", json={"inputs": []}, headers={"X-Request-ID": "mine"})
    body = response.json()
    assert response.headers["x-request-id"] == "mine"
    assert body.pop("timestamp").endswith("+00:00")
    assert body.pop("documentationUrl").endswith("#model_not_found")
    message = "Request for unknown model: 'nosuch' is not found"
    assert body == {
        "error": message,
        "errorCode": "MODEL_NOT_FOUND",
        "message": message,
        "httpStatus": 404,
        "requestId": "mine",
        "context": {"model": "nosuch"},
        "retryable": False,
    }


def test_a_grpc_error_names_its_code_in_the_trailing_metadata(server: Any) -> None:
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="nosuch"), metadata=[("x-request-id", "mine")])
    error: Any = caught.value
    trailing = dict(error.trailing_metadata())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (trailing["trygon-error-code"], trailing["x-request-id"]) == ("MODEL_NOT_FOUND", "mine")


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda client: client.get_model_config("nosuch"), "StatusCode.NOT_FOUND"),
        (lambda client: client.get_model_metadata("digits_onnx", "99"), "StatusCode.NOT_FOUND"),
        (lambda client: client.get_model_metadata("digits_onnx", "one"), "StatusCode.INVALID_ARGUMENT"),
        (lambda client: client.get_inference_statistics("nosuch"), "StatusCode.NOT_FOUND"),
        (lambda client: client.load_model("nosuch"), "StatusCode.NOT_FOUND"),
        (lambda client: client.unload_model("nosuch"), "StatusCode.NOT_FOUND"),
    ],
)
def test_grpc_refuses_what_is_not_there(grpc_client: Any, ask: Callable[[Any], Any], status: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(grpc_client)
    assert caught.value.status() == status


def test_the_index_and_the_statistics_name_every_example(http_client: Any) -> None:
    index = {entry["name"]: entry for entry in http_client.get_model_repository_index()}
    statistics = {entry["name"] for entry in http_client.get_inference_statistics()["model_stats"]}
    for model in FORMATS:
        assert index[model] == {"name": model, "version": "1", "state": "READY", "reason": ""}
        assert model in statistics
