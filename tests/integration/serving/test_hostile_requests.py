"""Requests that no honest client sends: each is refused with its code, and the server goes on answering others."""

import contextlib
import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from tritonclient import http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

INFER = "/v2/models/digits_onnx/infer"
MEBIBYTE = 1024 * 1024
LIMIT = 64 * MEBIBYTE
IDLE_CONNECTIONS = 40


def tensor(**changes: Any) -> dict[str, Any]:
    """Return a good input with changes; a change to None takes the field away."""
    fields = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64} | changes
    return {name: value for name, value in fields.items() if value is not None}


def with_inputs(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return orjson.dumps({"inputs": inputs, **fields})


def binary(header: dict[str, Any], data: bytes, length: Any = None) -> tuple[bytes, dict[str, str]]:
    text = orjson.dumps(header)
    return text + data, {"Inference-Header-Content-Length": str(len(text) if length is None else length)}


def announced(size: int) -> dict[str, Any]:
    return {"inputs": [tensor(data=None, parameters={"binary_data_size": size})]}


def bomb(size: int) -> bytes:
    stream, block = zlib.compressobj(9, wbits=31), bytes(MEBIBYTE)
    return b"".join(stream.compress(block) for _ in range(size // MEBIBYTE)) + stream.flush()


BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "REQUEST_JSON_INVALID"),
    "no JSON": (b"{", 400, "REQUEST_JSON_INVALID"),
    "bytes": (b"\xff\xfe", 400, "REQUEST_JSON_INVALID"),
    "a list": (b"[]", 400, "REQUEST_MALFORMED"),
    "NaN": (with_inputs(tensor()).replace(b"[0,", b"[NaN,"), 400, "REQUEST_JSON_INVALID"),
    "Infinity": (with_inputs(tensor()).replace(b"[0,", b"[Infinity,"), 400, "REQUEST_JSON_INVALID"),
    "depth": (b"[" * 100_000, 400, "REQUEST_JSON_TOO_DEEP"),
    "no inputs": (b"{}", 400, "REQUEST_FIELD_MISSING"),
    "inputs of a wrong type": (b'{"inputs": 5}', 400, "REQUEST_FIELD_INVALID"),
    "no data": (with_inputs(tensor(data=None)), 400, "TENSOR_DATA_MISSING"),
    "text for numbers": (with_inputs(tensor(data=["x"] * 64)), 400, "TENSOR_DATA_INVALID"),
    "a number beyond the type": (with_inputs(tensor(data=[1e300] * 64)), 400, "TENSOR_DATA_INVALID"),
    "too few elements": (with_inputs(tensor(data=[0] * 63)), 400, "TENSOR_SIZE_MISMATCH"),
    "too many elements": (with_inputs(tensor(data=[0] * 65)), 400, "TENSOR_SIZE_MISMATCH"),
    "a wrong shape": (with_inputs(tensor(shape=[1, 32], data=[0] * 32)), 400, "TENSOR_SHAPE_MISMATCH"),
    "a wrong rank": (with_inputs(tensor(shape=[64])), 400, "TENSOR_SHAPE_MISMATCH"),
    "a negative shape": (with_inputs(tensor(shape=[-1, 64])), 400, "TENSOR_SHAPE_INVALID"),
    "a huge shape": (with_inputs(tensor(shape=[10**18, 64])), 400, "TENSOR_SHAPE_INVALID"),
    "a huge shape of one": (with_inputs(tensor(shape=[10**18, 1])), 400, "TENSOR_SIZE_MISMATCH"),
    "a shape of many": (with_inputs(tensor(shape=[2**62] * 1000)), 400, "TENSOR_SHAPE_INVALID"),
    "a batch over the maximum": (
        with_inputs(tensor(shape=[33, 64], data=[0] * 64 * 33)),
        400,
        "TENSOR_BATCH_TOO_LARGE",
    ),
    "a wrong datatype": (with_inputs(tensor(datatype="INT64")), 400, "TENSOR_DATATYPE_MISMATCH"),
    "no datatype": (with_inputs(tensor(datatype="FP13")), 400, "TENSOR_DATATYPE_UNKNOWN"),
    "a missing input": (with_inputs(), 400, "TENSOR_INPUT_MISSING"),
    "an unknown input": (with_inputs(tensor(), tensor(name="other")), 400, "TENSOR_INPUT_UNKNOWN"),
    "an input twice": (with_inputs(tensor(), tensor()), 400, "TENSOR_NAME_DUPLICATE"),
    "an unknown output": (with_inputs(tensor(), outputs=[{"name": "other"}]), 400, "TENSOR_OUTPUT_UNKNOWN"),
    "a reserved parameter": (
        with_inputs(tensor(), parameters={"triton_secret": 1}),
        400,
        "REQUEST_PARAMETER_RESERVED",
    ),
    "a wrong parameter": (with_inputs(tensor(), parameters={"priority": "high"}), 400, "REQUEST_PARAMETER_INVALID"),
    "a body over the limit": (b" " * (LIMIT + 1), 413, "REQUEST_BODY_TOO_LARGE"),
}

BINARY_BODIES: dict[str, tuple[tuple[bytes, dict[str, str]], str]] = {
    "left-over bytes": (binary(announced(256), bytes(257)), "TENSOR_DATA_LEFT_OVER"),
    "missing bytes": (binary(announced(256), bytes(255)), "TENSOR_DATA_MISSING"),
    "a size that does not fit the shape": (binary(announced(252), bytes(252)), "TENSOR_SIZE_MISMATCH"),
    "a size of exabytes": (binary(announced(10**18), b""), "TENSOR_DATA_MISSING"),
    "a negative size": (binary(announced(-1), b""), "REQUEST_PARAMETER_INVALID"),
    "a header beyond the body": (binary(announced(256), bytes(256), 10**9), "REQUEST_HEADER_LENGTH_INVALID"),
    "a negative header": (binary(announced(256), bytes(256), -1), "REQUEST_HEADER_LENGTH_INVALID"),
    "a header that is no number": (binary(announced(256), bytes(256), "ten"), "REQUEST_HEADER_LENGTH_INVALID"),
    "a header of 5,000 digits": (binary(announced(256), bytes(256), "9" * 5000), "REQUEST_HEADER_LENGTH_INVALID"),
    "a header that cuts the JSON": (binary(announced(256), bytes(256), 10), "REQUEST_JSON_INVALID"),
}

ENCODED_BODIES: dict[str, tuple[str, bytes, int, str]] = {
    "a bomb": ("gzip", bomb(LIMIT + MEBIBYTE), 413, "REQUEST_BODY_TOO_LARGE"),
    "no gzip": ("gzip", b"plain", 400, "REQUEST_ENCODING_INVALID"),
    "half a gzip": ("gzip", gzip.compress(with_inputs(tensor()))[:-8], 400, "REQUEST_ENCODING_INVALID"),
    "an unknown encoding": ("br", b"", 415, "REQUEST_ENCODING_UNSUPPORTED"),
}


@pytest.fixture(scope="module")
def stub(server: Any) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc_url, options=options) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def _the_server_goes_on(http_client: Any, stub: Any, digit: Any) -> Iterator[None]:
    """After each test both protocols answer a good request as before."""
    yield
    image = triton_http.InferInput("image", [1, 64], "FP32")
    image.set_data_from_numpy(digit)
    assert http_client.infer("digits_onnx", [image]).as_numpy("probabilities").argmax() == 9
    answer = stub.ModelInfer(message(data=digit.tobytes()))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).argmax() == 9


def refusal(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["error"] == body["message"]
    assert body["httpStatus"] == response.status_code
    return response.status_code, body["errorCode"]


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused(http: httpx.Client, name: str) -> None:
    content, status, code = BODIES[name]
    assert refusal(http.post(INFER, content=content)) == (status, code)


@pytest.mark.parametrize("name", BINARY_BODIES)
def test_bad_binary_data_is_refused(http: httpx.Client, name: str) -> None:
    (content, headers), code = BINARY_BODIES[name]
    assert refusal(http.post(INFER, content=content, headers=headers)) == (400, code)


@pytest.mark.parametrize("name", ENCODED_BODIES)
def test_bad_compression_is_refused(http: httpx.Client, name: str) -> None:
    encoding, content, status, code = ENCODED_BODIES[name]
    response = http.post(INFER, content=content, headers={"Content-Encoding": encoding})
    assert refusal(response) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/nosuch", 404, "REQUEST_ROUTE_UNKNOWN"),
        ("DELETE", "/v2/models/digits_onnx", 405, "REQUEST_METHOD_NOT_ALLOWED"),
        ("GET", INFER, 405, "REQUEST_METHOD_NOT_ALLOWED"),
        ("POST", "/v2/models/digits_onnx/versions/one/infer", 400, "MODEL_VERSION_INVALID"),
        ("POST", "/v2/models/digits_onnx/versions/-1/infer", 400, "MODEL_VERSION_INVALID"),
        ("POST", f"/v2/models/digits_onnx/versions/{'9' * 5000}/infer", 400, "MODEL_VERSION_INVALID"),
        ("POST", "/v2/models/digits_onnx/versions/77/infer", 404, "MODEL_VERSION_NOT_FOUND"),
    ],
)
def test_a_bad_address_is_refused(http: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    content = with_inputs(tensor()) if method == "POST" else b""
    assert refusal(http.request(method, path, content=content)) == (status, code)


@pytest.mark.parametrize(
    "name", ["../../etc", "..%2f..%2fetc", "%2e%2e%2f%2e%2e%2fetc", "..", "%00", ".hidden", "a%0d%0ab"]
)
@pytest.mark.parametrize("path", ["/v2/repository/models/{}/load", "/v2/models/{}/infer"])
def test_a_name_does_not_leave_the_repository(server: Any, path: str, name: str) -> None:
    with connection(server) as sent:
        body = with_inputs(tensor()) if path.endswith("infer") else b"{}"
        head = (
            f"POST {path.format(name)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sent.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: sent.recv(65536), b""))
    start, _, content = answer.partition(b"\r\n\r\n")
    assert 400 <= int(start.split()[1]) < 500
    assert json.loads(content)["errorCode"] in {
        "MODEL_NAME_INVALID",
        "MODEL_NOT_FOUND",
        "REQUEST_ROUTE_UNKNOWN",
        "REQUEST_METHOD_NOT_ALLOWED",
    }
    assert b"root:" not in answer


@contextlib.contextmanager
def connection(server: Any) -> Iterator[socket.socket]:
    host, port = server.http_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as sent:
        yield sent


def test_connections_that_send_nothing_or_half_hold_nobody_up(server: Any, http: httpx.Client, digit: Any) -> None:
    halves = [
        b"",
        b"POST /v2/models/dig",
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Le".encode(),
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode(),
    ]
    request = {"inputs": [tensor(data=digit.ravel().tolist())]}
    with contextlib.ExitStack() as open_connections:
        for number in range(IDLE_CONNECTIONS):
            sent = open_connections.enter_context(connection(server))
            sent.sendall(halves[number % len(halves)])
        with ThreadPoolExecutor(4) as pool:
            for response in pool.map(lambda _: http.post(INFER, json=request), range(40)):
                assert response.status_code == 200


def test_callers_that_hang_up_hold_nobody_up(server: Any, http: httpx.Client) -> None:
    body = with_inputs(tensor())
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(20):
        with connection(server) as sent:
            sent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sent.sendall(head + body)
    assert http.post(INFER, content=body).status_code == 200


def message(data: bytes = bytes(256), **changes: Any) -> service_pb2.ModelInferRequest:
    """Return a good message with changes of its one input."""
    parameters = changes.pop("parameters", {})
    fields = {"name": "image", "datatype": "FP32", "shape": [1, 64]} | changes
    request = service_pb2.ModelInferRequest(model_name=fields.pop("model", "digits_onnx"))
    request.model_version = fields.pop("version", "")
    request.raw_input_contents.append(data)
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    request.inputs.add(**fields)
    return request


@pytest.mark.parametrize(
    ("request_message", "status", "code"),
    [
        (message(shape=[10**18, 64]), "INVALID_ARGUMENT", "TENSOR_SHAPE_INVALID"),
        (message(shape=[-1, 64]), "INVALID_ARGUMENT", "TENSOR_SHAPE_INVALID"),
        (message(shape=[1, 32], data=bytes(128)), "INVALID_ARGUMENT", "TENSOR_SHAPE_MISMATCH"),
        (message(shape=[33, 64], data=bytes(33 * 256)), "INVALID_ARGUMENT", "TENSOR_BATCH_TOO_LARGE"),
        (message(data=bytes(255)), "INVALID_ARGUMENT", "TENSOR_SIZE_MISMATCH"),
        (message(datatype="INT32"), "INVALID_ARGUMENT", "TENSOR_DATATYPE_MISMATCH"),
        (message(datatype="FP13"), "INVALID_ARGUMENT", "TENSOR_DATATYPE_UNKNOWN"),
        (message(name="other"), "INVALID_ARGUMENT", "TENSOR_INPUT_UNKNOWN"),
        (message(model="../../etc"), "NOT_FOUND", "MODEL_NOT_FOUND"),
        (message(version="one"), "INVALID_ARGUMENT", "MODEL_VERSION_INVALID"),
        (message(parameters={"triton_secret": "x"}), "INVALID_ARGUMENT", "REQUEST_PARAMETER_RESERVED"),
        (service_pb2.ModelInferRequest(model_name="digits_onnx"), "INVALID_ARGUMENT", "TENSOR_INPUT_MISSING"),
        (service_pb2.ModelInferRequest(), "NOT_FOUND", "MODEL_NOT_FOUND"),
    ],
)
def test_a_bad_message_is_refused(stub: Any, request_message: Any, status: str, code: str) -> None:
    assert grpc_refusal(lambda: stub.ModelInfer(request_message)) == (status, code)


def test_left_over_contents_are_refused(stub: Any) -> None:
    request = message()
    request.raw_input_contents.append(b"more")
    assert grpc_refusal(lambda: stub.ModelInfer(request)) == ("INVALID_ARGUMENT", "TENSOR_DATA_LEFT_OVER")


def test_a_message_over_the_limit_is_refused(stub: Any) -> None:
    request = message(shape=[LIMIT // 256 + 1, 64], data=bytes(LIMIT + 256))
    assert grpc_refusal(lambda: stub.ModelInfer(request)) == ("RESOURCE_EXHAUSTED", "REQUEST_BODY_TOO_LARGE")


def test_a_model_cannot_be_loaded_from_outside_the_repository(stub: Any) -> None:
    request = service_pb2.RepositoryModelLoadRequest(model_name="../../etc")
    assert grpc_refusal(lambda: stub.RepositoryModelLoad(request)) == ("INVALID_ARGUMENT", "MODEL_NAME_INVALID")
    request = service_pb2.RepositoryModelLoadRequest(model_name="outside")
    request.parameters["config"].string_param = "{}"
    request.parameters["file:../outside.onnx"].bytes_param = b""
    assert grpc_refusal(lambda: stub.RepositoryModelLoad(request)) == ("INVALID_ARGUMENT", "REQUEST_PARAMETER_INVALID")


def test_bytes_that_are_no_message_are_refused(server: Any) -> None:
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError):
            call(b"\xff\xff\xff", timeout=60)


def test_a_stream_tells_of_each_bad_request_and_goes_on(stub: Any) -> None:
    messages = [message(shape=[10**18, 64]), message(), message(name="other"), message()]
    answers = list(stub.ModelStreamInfer(iter(messages), timeout=60))
    assert len(answers) == 4
    codes = {answer.infer_response.parameters["trygon_error_code"].string_param for answer in answers}
    assert codes == {"", "TENSOR_SHAPE_INVALID", "TENSOR_INPUT_UNKNOWN"}


def test_tritonclient_shows_the_reason(http_client: Any) -> None:
    image = triton_http.InferInput("image", [33, 64], "FP32")
    image.set_data_from_numpy(np.zeros((33, 64), np.float32))
    with pytest.raises(InferenceServerException, match="32") as caught:
        http_client.infer("digits_onnx", [image])
    assert caught.value.status() == "400"


def grpc_refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, dict(error.trailing_metadata() or ()).get("trygon-error-code", error.details())
