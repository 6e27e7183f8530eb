"""gRPC as messages: typed contents, what is refused, health, and what trailing metadata say."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trygon.deployments.api.open_inference.grpc import OpenInferenceGrpc
from trygon.deployments.api.proto import grpc_service_pb2 as pb
from trygon.deployments.api.proto import grpc_service_pb2_grpc
from trygon.models.versions import ModelState

Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor


@pytest.fixture
async def channel(data_plane: Any) -> AsyncIterator[grpc.aio.Channel]:
    servicer = OpenInferenceGrpc(lambda: data_plane, server_name="trygon", max_body_bytes=4 * 1024 * 1024)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(grace=None)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)


def message(datatype: str = "FP32", shape: Sequence[int] = (1, 2), **fields: Any) -> pb.ModelInferRequest:
    """Return a request of one input; `raw`, typed contents and other fields of the message by name."""
    raw = fields.pop("raw", ())
    parameters = fields.pop("parameters", {})
    tensor = Input(name=fields.pop("name", "INPUT0"), datatype=datatype, shape=shape)
    for name in [name for name in fields if name.endswith("contents")]:
        getattr(tensor.contents, name).extend(fields.pop(name))
    request = pb.ModelInferRequest(
        model_name=f"identity_{datatype.lower()}", inputs=[tensor], raw_input_contents=raw, **fields
    )
    for name, (choice, value) in parameters.items():
        setattr(request.parameters[name], choice, value)
    return request


async def refusal(stub: Any, request: pb.ModelInferRequest) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request)
    trailing = dict(caught.value.trailing_metadata())
    assert trailing["x-request-id"]
    assert caught.value.details()
    return caught.value.code().name, trailing["trygon-error-code"]


@pytest.mark.parametrize(
    ("datatype", "contents", "raw"),
    [
        ("BOOL", {"bool_contents": [True, False]}, b"\x01\x00"),
        ("UINT8", {"uint_contents": [0, 255]}, b"\x00\xff"),
        ("UINT16", {"uint_contents": [1, 2]}, b"\x01\x00\x02\x00"),
        ("UINT32", {"uint_contents": [1, 2]}, b"\x01\0\0\0\x02\0\0\0"),
        ("UINT64", {"uint64_contents": [1, 2**64 - 1]}, b"\x01" + bytes(7) + b"\xff" * 8),
        ("INT8", {"int_contents": [-1, 127]}, b"\xff\x7f"),
        ("INT16", {"int_contents": [-1, 1]}, b"\xff\xff\x01\x00"),
        ("INT32", {"int_contents": [-1, 1]}, b"\xff\xff\xff\xff\x01\0\0\0"),
        ("INT64", {"int64_contents": [-1, 1]}, b"\xff" * 8 + b"\x01" + bytes(7)),
        ("FP32", {"fp32_contents": [1, 2]}, b"\0\0\x80\x3f\0\0\0\x40"),
        ("FP64", {"fp64_contents": [1, 2]}, bytes(6) + b"\xf0\x3f" + bytes(7) + b"\x40"),
        ("BYTES", {"bytes_contents": [b"\xff", b""]}, b"\x01\0\0\0\xff\0\0\0\0"),
    ],
)
async def test_typed_contents_are_accepted_and_raw_ones_answered(
    stub: Any, datatype: str, contents: dict[str, Any], raw: bytes
) -> None:
    response = await stub.ModelInfer(message(datatype, id="7", **contents))
    assert list(response.raw_output_contents) == [raw]
    assert (response.id, response.model_version) == ("7", "1")
    assert response.outputs[0].datatype == datatype


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (message(fp32_contents=[1, 2, 3]), "TENSOR_SIZE_MISMATCH"),
        (message(), "TENSOR_SIZE_MISMATCH"),
        (message(fp64_contents=[1, 2]), "TENSOR_DATA_INVALID"),
        (message("FP16", fp32_contents=[1, 2]), "TENSOR_DATA_INVALID"),
        (message("INT8", int_contents=[1, 128]), "TENSOR_DATA_INVALID"),
        (message("UINT16", uint_contents=[1, 2**16]), "TENSOR_DATA_INVALID"),
        (message("BOOL", raw=[b"\x00\x02"]), "TENSOR_DATA_INVALID"),
        (message("FLOAT", raw=[bytes(8)]), "TENSOR_DATATYPE_UNKNOWN"),
        (message("BYTES", raw=[b"\xff\xff\xff\xff"]), "TENSOR_SIZE_MISMATCH"),
        (message(raw=[bytes(8)], fp32_contents=[1, 2]), "REQUEST_FIELD_INVALID"),
        (message(raw=[bytes(7)]), "TENSOR_SIZE_MISMATCH"),
        (message(raw=[bytes(8), bytes(8)]), "TENSOR_DATA_LEFT_OVER"),
        (message(raw=[bytes(8)], name=""), "REQUEST_FIELD_INVALID"),
        (message(raw=[bytes(8)], shape=(-1, 2)), "TENSOR_SHAPE_INVALID"),
        (message(raw=[bytes(8)], shape=(2**62, 2**62)), "TENSOR_SHAPE_INVALID"),
        (message(raw=[bytes(8)], shape=[2**62] * 10_000), "TENSOR_SHAPE_INVALID"),
        (message(raw=[bytes(8)], outputs=[Output()]), "REQUEST_FIELD_INVALID"),
        (message(raw=[bytes(8)], outputs=[Output(name="OUTPUT0")] * 2), "TENSOR_NAME_DUPLICATE"),
        (message(raw=[bytes(8)], outputs=[Output(name="OUTPUT9")]), "TENSOR_OUTPUT_UNKNOWN"),
        (message(raw=[bytes(8)], parameters={"triton_x": ("bool_param", True)}), "REQUEST_PARAMETER_RESERVED"),
        (message(raw=[bytes(8)], parameters={"priority": ("int64_param", -1)}), "REQUEST_PARAMETER_INVALID"),
        (message(raw=[bytes(8)], parameters={"timeout": ("string_param", "1")}), "REQUEST_PARAMETER_INVALID"),
    ],
)
async def test_a_bad_message_is_refused(stub: Any, request_: pb.ModelInferRequest, code: str) -> None:
    assert await refusal(stub, request_) == ("INVALID_ARGUMENT", code)


async def test_two_inputs_need_two_names_and_two_contents(stub: Any) -> None:
    request = message(raw=[bytes(8)])
    request.inputs.append(request.inputs[0])
    assert await refusal(stub, request) == ("INVALID_ARGUMENT", "TENSOR_DATA_MISSING")
    request.raw_input_contents.append(bytes(8))
    assert await refusal(stub, request) == ("INVALID_ARGUMENT", "TENSOR_NAME_DUPLICATE")


async def test_shared_memory_is_unsupported(stub: Any) -> None:
    request = message(raw=[bytes(8)])
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert await refusal(stub, request) == ("UNIMPLEMENTED", "REQUEST_PARAMETER_UNSUPPORTED")


async def test_parameters_are_sorted_into_ours_and_the_callers(stub: Any, data_plane: Any) -> None:
    parameters = {
        "priority": ("uint64_param", 2**64 - 1),
        "timeout": ("int64_param", 5000),
        "mine": ("string_param", "x"),
        "weight": ("double_param", 0.5),
    }
    await stub.ModelInfer(message(raw=[bytes(8)], parameters=parameters))
    (request,) = data_plane.requests
    assert (request.priority, request.timeout_us) == (2**64 - 1, 5000)
    assert request.parameters == {"mine": "x", "weight": 0.5}


async def test_the_parameters_of_an_answer_keep_their_types(stub: Any, data_plane: Any) -> None:
    given = {"flag": True, "count": -1, "big": 2**64 - 1, "weight": 0.5, "text": "x"}
    infer = data_plane.infer

    async def answer_with_parameters(request: Any) -> Any:
        response = await infer(request)
        return response._replace(parameters=given)

    data_plane.infer = answer_with_parameters
    response = await stub.ModelInfer(message(raw=[bytes(8)]))
    found = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in response.parameters.items()}
    assert found == given


async def test_a_message_over_the_limit_is_refused(stub: Any) -> None:
    request = message(shape=(1, 2 * 1024 * 1024), raw=[bytes(8 * 1024 * 1024)])
    assert await refusal(stub, request) == ("RESOURCE_EXHAUSTED", "REQUEST_BODY_TOO_LARGE")


async def test_a_large_message_is_decoded_off_the_event_loop_alike(stub: Any) -> None:
    request = message(shape=(1, 500_000), raw=[bytes(2_000_000)])
    assert (await stub.ModelInfer(request)).raw_output_contents[0] == bytes(2_000_000)


async def test_a_text_too_long_for_trailers_is_cut(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(pb.ModelInferRequest(model_name="ä" * 100_000))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().endswith("…")


async def test_the_unforeseen_is_not_leaked_and_bears_the_callers_request_id(
    stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    request = message(raw=[bytes(8)])
    request.model_name = "broken"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request, metadata=[("x-request-id", "r1")])
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "swordfish" not in caught.value.details()
    assert "r1" in caught.value.details()
    assert dict(caught.value.trailing_metadata())["x-request-id"] == "r1"
    assert "swordfish" in caplog.text


async def test_a_stream_answers_concurrently_and_tells_which_request_failed(stub: Any) -> None:
    def requests() -> list[pb.ModelInferRequest]:
        gathered = [message(raw=[bytes(8)], id=str(index)) for index in range(8)]
        for request in gathered:
            # Answers come only once eight requests are under way at the same time.
            request.model_name = "together"
        return [message(raw=[b""], id="bad"), *gathered]

    answers = {answer.infer_response.id: answer async for answer in stub.ModelStreamInfer(iter(requests()))}
    assert set(answers) == {"bad", *map(str, range(8))}
    bad = answers.pop("bad")
    assert "bytes" in bad.error_message
    assert bad.infer_response.parameters["trygon_error_code"].string_param == "TENSOR_SIZE_MISMATCH"
    assert not any(answer.error_message for answer in answers.values())


async def test_load_and_unload_take_their_parameters(stub: Any, data_plane: Any) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="double")
    request.parameters["config"].string_param = "{}"
    request.parameters["file:1/model.onnx"].bytes_param = b"\xff"
    await stub.RepositoryModelLoad(request)
    unload = pb.RepositoryModelUnloadRequest(model_name="double")
    unload.parameters["unload_dependents"].bool_param = True
    await stub.RepositoryModelUnload(unload)
    assert data_plane.loads == [("double", "{}", {"1/model.onnx": b"\xff"})]
    assert data_plane.unloads == [("double", True)]


async def test_health_follows_the_models(channel: grpc.aio.Channel, data_plane: Any) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    states = health_pb2.HealthCheckResponse
    for service in ("", "inference.GRPCInferenceService"):
        request = health_pb2.HealthCheckRequest(service=service)
        data_plane.models["double"].state = ModelState.READY
        assert (await health.Check(request)).status == states.SERVING
        data_plane.models["double"].state = ModelState.LOADING
        assert (await health.Check(request)).status == states.NOT_SERVING


async def test_health_of_another_service_is_not_found_and_watch_unimplemented(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [response async for response in health.Watch(health_pb2.HealthCheckRequest())]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
