"""The HTTP routes: health, metadata, statistics, and what unknown paths, methods and features are answered."""

import re
from typing import Any

import httpx
import orjson
import pytest
from starlette.routing import Mount, Route

from trygon.deployments.api.application import Boundary, http_application
from trygon.errors import ErrorCode
from trygon.models.versions import ModelState


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/double/ready", {"name": "double", "ready": True}),
        ("/v2/models/double/versions/1/ready", {"name": "double", "ready": True}),
        ("/q/health/live", {"status": "UP", "missing": []}),
        ("/q/health/ready", {"status": "UP", "missing": []}),
    ],
)
async def test_health_is_ok_when_all_is_ready(http: httpx.AsyncClient, path: str, body: Any) -> None:
    response = await http.get(path)
    assert (response.status_code, response.json()) == (200, body)


async def test_health_tells_which_models_are_missing(http: httpx.AsyncClient, data_plane: Any) -> None:
    data_plane.models["double"].state = ModelState.LOADING
    missing = [{"name": "double", "version": "1", "state": "LOADING", "reason": "on its way"}]
    for path, body in (
        ("/v2/health/ready", {"ready": False}),
        ("/v2/models/double/ready", {"name": "double", "ready": False}),
        ("/q/health/ready", {"status": "DOWN", "missing": missing}),
    ):
        response = await http.get(path)
        assert (response.status_code, response.json()) == (503, body)
    assert (await http.get("/v2/health/live")).status_code == 200


async def test_server_metadata_advertises_what_is_there(http: httpx.AsyncClient) -> None:
    document = (await http.get("/v2")).json()
    assert document["name"] == "trygon"
    assert document["version"]
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(document["extensions"])
    assert not [name for name in document["extensions"] if re.search("shared|trace|logging|sequence", name)]


async def test_model_metadata_lists_the_tensors(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v2/models/double/versions/1")).json() == {
        "name": "double",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, 4]}],
    }


async def test_model_config_holds_what_load_generators_need(http: httpx.AsyncClient) -> None:
    config = (await http.get("/v2/models/double/config")).json()
    assert config["name"] == "double"
    assert config["max_batch_size"] == 8


async def test_statistics_are_numbers_even_beyond_int64(http: httpx.AsyncClient, data_plane: Any) -> None:
    data_plane.models["double"].statistics.success.add(2**64 - 1)
    response = await http.get("/v2/models/double/stats")
    (statistics,) = response.json()["model_stats"]
    assert statistics["inference_stats"]["success"] == {"count": 1, "ns": 2**64 - 1}
    assert (statistics["name"], statistics["version"]) == ("double", "1")


async def test_statistics_of_all_models_have_a_route_of_their_own(http: httpx.AsyncClient, data_plane: Any) -> None:
    response = await http.get("/v2/models/stats")
    assert len(response.json()["model_stats"]) == len(data_plane.models)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/",
        "/v3",
        "/v2/models",
        "/v2/models/a/b/c",
        "/v2/models/..%2fetc/infer",
        "/%00",
        "/v2/health/",
        "/v2/models/a%0ab/ready",
    ],
)
async def test_unknown_routes_are_404(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert (response.status_code, response.json()["errorCode"]) == (404, "REQUEST_ROUTE_UNKNOWN")


@pytest.mark.parametrize("name", ["%2e%2e", "%c3%28", "nosuch", "%00", "a" * 5000])
async def test_unknown_models_are_404_however_they_are_spelled(http: httpx.AsyncClient, name: str) -> None:
    response = await http.get(f"/v2/models/{name}/ready")
    assert (response.status_code, response.json()["errorCode"]) == (404, "MODEL_NOT_FOUND")


async def test_an_unknown_version_is_404(http: httpx.AsyncClient) -> None:
    response = await http.get("/v2/models/double/versions/2")
    assert (response.status_code, response.json()["errorCode"]) == (404, "MODEL_VERSION_NOT_FOUND")


async def test_a_model_that_is_loading_is_503_and_retryable(http: httpx.AsyncClient, data_plane: Any) -> None:
    data_plane.models["double"].state = ModelState.LOADING
    response = await http.get("/v2/models/double")
    assert (response.status_code, response.json()["retryable"]) == (503, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/double/infer", {"POST"}),
        ("PUT", "/v2/models/double/versions/1/infer", {"POST"}),
        ("POST", "/v2", {"GET", "HEAD"}),
        ("DELETE", "/v2/health/live", {"GET", "HEAD"}),
        ("POST", "/openapi", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_405_with_those_allowed(
    http: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    response = await http.request(method, path)
    assert (response.status_code, response.json()["errorCode"]) == (405, "REQUEST_METHOD_NOT_ALLOWED")
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/double/trace/setting"),
        ("POST", "/v2/models/double/generate"),
        ("POST", "/v2/models/double/versions/1/generate_stream"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
    ],
)
async def test_features_that_are_not_there_are_501(http: httpx.AsyncClient, method: str, path: str) -> None:
    response = await http.request(method, path)
    assert (response.status_code, response.json()["errorCode"]) == (501, "REQUEST_FEATURE_UNSUPPORTED")


async def test_the_root_says_where_to_go_on(http: httpx.AsyncClient) -> None:
    response = await http.get("/")
    assert response.json() == {"name": "trygon", "documentation": "/openapi", "inference": "/v2"}


async def test_the_openapi_document_describes_every_documented_route(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi")).json()
    application = http_application(lambda: None, server_name="trygon", max_body_bytes=1)
    served = set()
    for route in application.routes:
        if isinstance(route, Mount):
            served |= {route.path + child.path for child in route.routes}
        elif isinstance(route, Route):
            served.add(route.path)
    missing = served - set(document["paths"])
    assert set(document["paths"]) <= served
    assert all(re.search("shared|trace|logging|generate", path) for path in missing)


async def test_the_openapi_document_refers_only_to_what_it_defines(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi")).json()
    text = orjson.dumps(document).decode()
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) == set(schemas)
    identifiers = re.findall(r'"operationId":"(\w+)"', text)
    assert len(identifiers) == len(set(identifiers))
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                names = response["description"].split(", ") if status != "200" else []
                assert all(ErrorCode[name].http_status == int(status) for name in names)


async def test_a_sane_request_id_is_echoed(http: httpx.AsyncClient) -> None:
    response = await http.get("/v2/models/nosuch", headers={"X-Request-ID": "abc-123"})
    assert response.headers["x-request-id"] == "abc-123"
    assert response.json()["requestId"] == "abc-123"


@pytest.mark.parametrize("given", [b"", b"a b", b"a" * 129, b"\xe4", b"a\x7f"])
async def test_another_request_id_is_replaced(http: httpx.AsyncClient, given: bytes) -> None:
    response = await http.get("/v2/models/nosuch", headers={"X-Request-ID": given})
    assert len(response.headers["x-request-id"]) == 36
    assert response.json()["requestId"] == response.headers["x-request-id"]


async def test_the_unforeseen_is_logged_and_not_leaked(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    tensor = {"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [1]}
    response = await http.post("/v2/models/broken/infer", json={"inputs": [tensor]}, headers={"X-Request-ID": "r1"})
    body = response.json()
    assert (response.status_code, body["errorCode"]) == (500, "SYSTEM_INTERNAL")
    assert "swordfish" not in response.text
    assert "r1" in body["message"]
    assert "swordfish" in caplog.text
    assert "r1" in caplog.text


async def test_the_request_id_header_can_be_left_to_ray_serve(data_plane: Any) -> None:
    application = http_application(lambda: data_plane, server_name="trygon", max_body_bytes=1, echo_request_id=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://trygon") as http:
        assert "x-request-id" not in (await http.get("/v2")).headers


def test_the_infer_routes_are_matched_first() -> None:
    application = http_application(lambda: None, server_name="trygon", max_body_bytes=1)
    assert [route.path for route in application.routes[:2]] == [
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
    ]
    assert len(application.routes) < 10


async def test_websockets_are_turned_away(data_plane: Any) -> None:
    application = http_application(lambda: data_plane, server_name="trygon", max_body_bytes=1)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await application({"type": "websocket", "path": "/v2", "headers": []}, None, send)
    assert sent[0]["type"] == "websocket.close"


async def test_a_failure_in_the_middle_of_an_answer_cuts_the_connection() -> None:
    async def fails_late(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    async def send(_message: Any) -> None:
        pass

    boundary = Boundary(fails_late, echo_request_id=True)
    with pytest.raises(RuntimeError, match="too late"):
        await boundary({"type": "http", "path": "/v2", "headers": []}, None, send)
