"""Inference over HTTP as bytes: what good requests are answered, and which code each bad one gets."""

import struct
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from trygon.deployments.api.json_document import MAX_CONTAINERS, parse_object
from trygon.errors import ErrorCode, InferenceError

FP32 = "/v2/models/identity_fp32/infer"


def tensor(**changes: Any) -> dict[str, Any]:
    """Return a good FP32 input with changes; a change to None takes the field away."""
    fields = {"name": "INPUT0", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5]} | changes
    return {name: value for name, value in fields.items() if value is not None}


def binary(header: dict[str, Any], data: bytes) -> dict[str, Any]:
    text = orjson.dumps(header)
    return {"content": text + data, "headers": {"Inference-Header-Content-Length": str(len(text))}}


async def refusal(http: httpx.AsyncClient, *, url: str = FP32, **request: Any) -> tuple[int, str]:
    response = await http.post(url, **request)
    body = response.json()
    assert body["error"] == body["message"]
    assert body["httpStatus"] == response.status_code
    return response.status_code, body["errorCode"]


async def test_json_in_json_out(http: httpx.AsyncClient) -> None:
    response = await http.post(FP32, json={"id": "7", "inputs": [tensor()]})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "model_name": "identity_fp32",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.5]}],
    }


async def test_nested_arrays_are_row_major(http: httpx.AsyncClient) -> None:
    response = await http.post(FP32, json={"inputs": [tensor(data=[[1, 2], [3, 4]])]})
    assert response.json()["outputs"][0]["data"] == [1, 2, 3, 4]


async def test_a_version_may_be_named(http: httpx.AsyncClient) -> None:
    response = await http.post("/v2/models/identity_fp32/versions/1/infer", json={"inputs": [tensor()]})
    assert response.status_code == 200


async def test_binary_in_binary_out(http: httpx.AsyncClient) -> None:
    data = np.array([[1, float("nan")], [float("inf"), 4]], dtype="<f4").tobytes()
    header = {
        "inputs": [tensor(data=None, parameters={"binary_data_size": 16})],
        "parameters": {"binary_data_output": True},
    }
    response = await http.post(FP32, **binary(header, data))
    length = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.content[length:] == data
    assert orjson.loads(response.content[:length])["outputs"] == [
        {"name": "OUTPUT0", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
    ]


async def test_an_output_decides_for_itself_whether_it_is_binary(http: httpx.AsyncClient) -> None:
    request = {
        "inputs": [tensor()],
        "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    response = await http.post(FP32, json=request)
    assert "inference-header-content-length" not in response.headers
    assert response.json()["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.5]


async def test_tensors_reach_the_data_plane_as_picklable_bytes(http: httpx.AsyncClient, data_plane: Any) -> None:
    header = {"inputs": [tensor(data=None, parameters={"binary_data_size": 16})]}
    await http.post(FP32, **binary(header, bytes(16)))
    assert type(data_plane.requests[0].inputs[0].data) is bytes


async def test_parameters_are_sorted_into_ours_and_the_callers(http: httpx.AsyncClient, data_plane: Any) -> None:
    parameters = {
        "priority": 2**64 - 1,
        "timeout": 5000,
        "sequence_id": 0,
        "sequence_start": False,
        "triton_enable_empty_final_response": True,
        "mine": "x",
        "weight": 0.5,
    }
    response = await http.post(FP32, json={"inputs": [tensor()], "parameters": parameters})
    assert response.status_code == 200
    (request,) = data_plane.requests
    assert (request.priority, request.timeout_us) == (2**64 - 1, 5000)
    assert request.parameters == {"mine": "x", "weight": 0.5}


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP64", [-1.5, 1e308]),
        ("BYTES", ["", "größe\u0000"]),
    ],
)
async def test_extreme_values_survive_json(http: httpx.AsyncClient, datatype: str, data: list[Any]) -> None:
    request = {"inputs": [tensor(datatype=datatype, shape=[1, 2], data=data)]}
    response = await http.post(f"/v2/models/identity_{datatype.lower()}/infer", json=request)
    assert response.json()["outputs"][0]["data"] == data


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [1, 0]),
        ("UINT8", [0, 256]),
        ("UINT8", [-1, 0]),
        ("UINT64", [0, 2**63 * 2.0]),
        ("INT8", [1.0, 2]),
        ("INT32", [True, 1]),
        ("INT64", [2**63, 0]),
        ("FP32", [1e39, 0]),
        ("FP32", [True, 0]),
        ("FP32", ["1", "2"]),
        ("FP32", [None, None]),
        ("FP32", [{}, {}]),
        ("FP32", [[1], [2, 3]]),
        ("FP32", [[1, 2], 3]),
        ("BYTES", [1, 2]),
        ("BYTES", ["a", None]),
        ("FP16", [1, 2]),
        ("BF16", [1, 2]),
    ],
)
async def test_values_that_the_datatype_cannot_hold_are_refused(
    http: httpx.AsyncClient, datatype: str, data: list[Any]
) -> None:
    request = {"inputs": [tensor(datatype=datatype, shape=[1, 2], data=data)]}
    assert await refusal(http, json=request) == (400, "TENSOR_DATA_INVALID")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": None}, "REQUEST_FIELD_MISSING"),
        ({"name": ""}, "REQUEST_FIELD_INVALID"),
        ({"name": 1}, "REQUEST_FIELD_INVALID"),
        ({"name": "OTHER"}, "TENSOR_INPUT_UNKNOWN"),
        ({"datatype": None}, "REQUEST_FIELD_MISSING"),
        ({"datatype": "FLOAT"}, "TENSOR_DATATYPE_UNKNOWN"),
        ({"datatype": "INT32", "data": [1, 2, 3, 4]}, "TENSOR_DATATYPE_MISMATCH"),
        ({"shape": None}, "REQUEST_FIELD_MISSING"),
        ({"shape": "2"}, "REQUEST_FIELD_INVALID"),
        ({"shape": [2, 2.0]}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [True, 4]}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [-2, -2]}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [2**64 - 1, 1]}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [2**32, 2**32]}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [2**62 - 1] * 64}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [2**62 - 1] * 10_000}, "TENSOR_SHAPE_INVALID"),
        ({"shape": [10**18]}, "TENSOR_SIZE_MISMATCH"),
        ({"shape": [5]}, "TENSOR_SIZE_MISMATCH"),
        ({"shape": [4]}, "TENSOR_SHAPE_MISMATCH"),
        ({"data": None}, "TENSOR_DATA_MISSING"),
        ({"data": 5}, "REQUEST_FIELD_INVALID"),
        ({"data": {"0": 1}}, "REQUEST_FIELD_INVALID"),
        ({"parameters": []}, "REQUEST_FIELD_INVALID"),
        ({"parameters": {"binary_data_size": 0}}, "REQUEST_FIELD_INVALID"),
        ({"data": None, "parameters": {"binary_data_size": True}}, "REQUEST_PARAMETER_INVALID"),
        ({"data": None, "parameters": {"binary_data_size": -4}}, "REQUEST_PARAMETER_INVALID"),
        ({"data": None, "parameters": {"binary_data_size": 16}}, "TENSOR_DATA_MISSING"),
    ],
)
async def test_a_bad_input_is_refused(http: httpx.AsyncClient, change: dict[str, Any], code: str) -> None:
    fields = tensor(**change)
    assert await refusal(http, json={"inputs": [fields]}) == (400, code)


async def test_an_input_said_to_lie_in_shared_memory_is_unsupported(http: httpx.AsyncClient) -> None:
    fields = tensor(data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 16})
    assert await refusal(http, json={"inputs": [fields]}) == (501, "REQUEST_PARAMETER_UNSUPPORTED")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "REQUEST_FIELD_MISSING"),
        ({"inputs": {}}, "REQUEST_FIELD_INVALID"),
        ({"inputs": ["x"]}, "REQUEST_FIELD_INVALID"),
        ({"inputs": []}, "TENSOR_INPUT_MISSING"),
        ({"inputs": [tensor(), tensor()]}, "TENSOR_NAME_DUPLICATE"),
        ({"inputs": [tensor()], "id": 5}, "REQUEST_FIELD_INVALID"),
        ({"inputs": [tensor()], "outputs": {}}, "REQUEST_FIELD_INVALID"),
        ({"inputs": [tensor()], "outputs": [{}]}, "REQUEST_FIELD_MISSING"),
        ({"inputs": [tensor()], "outputs": [{"name": "OUTPUT9"}]}, "TENSOR_OUTPUT_UNKNOWN"),
        ({"inputs": [tensor()], "outputs": [{"name": "OUTPUT0"}] * 2}, "TENSOR_NAME_DUPLICATE"),
        ([], "REQUEST_MALFORMED"),
        (None, "REQUEST_MALFORMED"),
    ],
)
async def test_a_bad_document_is_refused(http: httpx.AsyncClient, document: Any, code: str) -> None:
    assert await refusal(http, content=orjson.dumps(document)) == (400, code)


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"triton_anything": 1}, 400, "REQUEST_PARAMETER_RESERVED"),
        ({"headers": "x"}, 400, "REQUEST_PARAMETER_RESERVED"),
        ({"triton_enable_empty_final_response": 1}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"sequence_id": 3}, 501, "REQUEST_PARAMETER_UNSUPPORTED"),
        ({"sequence_id": "three"}, 501, "REQUEST_PARAMETER_UNSUPPORTED"),
        ({"priority": -1}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"priority": True}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"timeout": 2**63}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"timeout": "1"}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"binary_data_output": "yes"}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"mine": [1]}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"mine": None}, 400, "REQUEST_PARAMETER_INVALID"),
        ([], 400, "REQUEST_FIELD_INVALID"),
    ],
)
async def test_a_bad_parameter_is_refused(http: httpx.AsyncClient, parameters: Any, status: int, code: str) -> None:
    assert await refusal(http, json={"inputs": [tensor()], "parameters": parameters}) == (status, code)


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"classification": -1}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"classification": 1.5}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"binary_data": None}, 400, "REQUEST_PARAMETER_INVALID"),
        ({"shared_memory_region": "r"}, 501, "REQUEST_PARAMETER_UNSUPPORTED"),
    ],
)
async def test_a_bad_parameter_of_an_output_is_refused(
    http: httpx.AsyncClient, parameters: Any, status: int, code: str
) -> None:
    outputs = [{"name": "OUTPUT0", "parameters": parameters}]
    assert await refusal(http, json={"inputs": [tensor()], "outputs": outputs}) == (status, code)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{}}", b'{"inputs": [NaN]}', b'{"inputs": [1e999]}', b'{"inputs": ["\xff"]}', b'{"id": "\\ud800"}'],
)
async def test_what_is_not_json_is_refused(http: httpx.AsyncClient, text: bytes) -> None:
    assert await refusal(http, content=text) == (400, "REQUEST_JSON_INVALID")


@pytest.mark.parametrize("depth", [101, 1000, 100_000])
async def test_deep_json_is_refused(http: httpx.AsyncClient, depth: int) -> None:
    text = b'{"x":' + b"[" * depth + b"]" * depth + b"}"
    assert await refusal(http, content=text) == (400, "REQUEST_JSON_TOO_DEEP")


def test_json_that_would_take_many_times_its_size_in_memory_is_refused() -> None:
    with pytest.raises(InferenceError) as caught:
        parse_object(b'{"x":[' + b"[]," * (MAX_CONTAINERS + 1) + b"0]}")
    assert caught.value.code is ErrorCode.REQUEST_BODY_TOO_LARGE


async def test_many_shallow_arrays_are_not_deep(http: httpx.AsyncClient) -> None:
    response = await http.post(FP32, json={"inputs": [tensor(shape=[500, 1], data=[[1]] * 500)]})
    assert response.status_code == 200


@pytest.mark.parametrize("length", ["-1", "0", "x", "1.0", "99999", "9" * 5000, "²", ""])
async def test_a_header_length_out_of_range_is_refused(http: httpx.AsyncClient, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode("latin-1")}
    assert await refusal(http, content=b"{}", headers=headers) == (400, "REQUEST_HEADER_LENGTH_INVALID")


@pytest.mark.parametrize(
    ("size", "sent", "code"),
    [
        (16, 12, "TENSOR_DATA_MISSING"),
        (16, 17, "TENSOR_DATA_LEFT_OVER"),
        (12, 12, "TENSOR_SIZE_MISMATCH"),
        (2**64 - 1, 16, "TENSOR_DATA_MISSING"),
    ],
)
async def test_binary_data_has_exactly_the_bytes_that_were_announced(
    http: httpx.AsyncClient, size: int, sent: int, code: str
) -> None:
    header = {"inputs": [tensor(data=None, parameters={"binary_data_size": size})]}
    assert await refusal(http, **binary(header, bytes(sent))) == (400, code)


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\0\0", struct.pack("<I", 2**32 - 1), bytes(4), bytes(12)])
async def test_broken_strings_in_binary_data_are_refused(http: httpx.AsyncClient, data: bytes) -> None:
    parameters = {"binary_data_size": len(data)}
    header = {"inputs": [tensor(data=None, datatype="BYTES", shape=[1, 2], parameters=parameters)]}
    assert await refusal(http, **binary(header, data)) == (400, "TENSOR_SIZE_MISMATCH")


async def test_binary_booleans_are_zero_or_one(http: httpx.AsyncClient) -> None:
    header = {"inputs": [tensor(data=None, datatype="BOOL", shape=[1, 2], parameters={"binary_data_size": 2})]}
    assert await refusal(http, **binary(header, b"\0\2")) == (400, "TENSOR_DATA_INVALID")


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP32", np.array([np.nan], "<f4").tobytes()), ("FP16", b"\0\0"), ("BYTES", b"\x01\0\0\0\xff")],
)
async def test_an_output_that_json_cannot_carry_is_an_error_that_says_what_to_do(
    http: httpx.AsyncClient, datatype: str, data: bytes
) -> None:
    parameters = {"binary_data_size": len(data)}
    header = {"inputs": [tensor(data=None, datatype=datatype, shape=[1, 1], parameters=parameters)]}
    response = await http.post(f"/v2/models/identity_{datatype.lower()}/infer", **binary(header, data))
    assert response.status_code == 400
    assert "ask for binary_data" in response.json()["error"]


async def test_an_empty_tensor_needs_no_data_whatever_its_other_dimensions(http: httpx.AsyncClient) -> None:
    response = await http.post(FP32, json={"inputs": [tensor(shape=[0, 10**18], data=[])]})
    assert response.json()["outputs"][0] == {
        "name": "OUTPUT0",
        "datatype": "FP32",
        "shape": [0, 10**18],
        "data": [],
    }


async def test_large_bodies_are_decoded_off_the_event_loop_alike(http: httpx.AsyncClient) -> None:
    values = [0.25] * 300_000
    request = {"inputs": [tensor(shape=[300_000, 1], data=values)]}
    response = await http.post(FP32, json=request)
    assert response.json()["outputs"][0]["data"] == values


async def test_large_answers_are_classified_off_the_event_loop_alike(http: httpx.AsyncClient) -> None:
    header = {
        "inputs": [tensor(data=None, shape=[1, 300_000], parameters={"binary_data_size": 1_200_000})],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 1}}],
    }
    response = await http.post(FP32, **binary(header, bytes(1_200_000)))
    assert response.json()["outputs"] == [
        {"name": "OUTPUT0", "datatype": "BYTES", "shape": [1], "data": ["0.000000:0"]}
    ]


async def test_the_parameters_of_an_answer_are_told(http: httpx.AsyncClient, data_plane: Any) -> None:
    infer = data_plane.infer

    async def answer_with_parameters(request: Any) -> Any:
        response = await infer(request)
        return response._replace(parameters={"mine": 1.5})

    data_plane.infer = answer_with_parameters
    response = await http.post(FP32, json={"inputs": [tensor()]})
    assert response.json()["parameters"] == {"mine": 1.5}
