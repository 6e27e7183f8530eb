"""The client of the repository protocol: what it asks, and what it makes of the answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest

from trygon.deployments.repository_client import IndexRow, RepositoryClient, grpc_is_live
from trygon.errors import ErrorCode, InferenceError

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def client(v2_server: Any) -> Iterator[RepositoryClient]:
    with RepositoryClient(v2_server.url + "/") as client:
        yield client


def test_index_rows_have_name_version_state_and_reason(client: RepositoryClient, v2_server: Any) -> None:
    v2_server.set_index(("digits", "1", "LOADING", "in progress"))
    row = IndexRow("digits", "1", "LOADING", "in progress")
    assert client.index() == [row]
    assert row.is_moving
    assert row.as_dict() == {"name": "digits", "version": "1", "state": "LOADING", "reason": "in progress"}


def test_a_model_that_was_never_loaded_has_a_name_alone(client: RepositoryClient, v2_server: Any) -> None:
    v2_server.answers["POST /v2/repository/index"] = (200, [{"name": "digits"}])
    assert client.index() == [IndexRow("digits", "", "", "")]


def test_load_and_unload_name_the_model_in_the_path(client: RepositoryClient, v2_server: Any) -> None:
    v2_server.answers["POST /v2/repository/models/a%2Fb/load"] = (200, b"")
    v2_server.answers["POST /v2/repository/models/digits/unload"] = (200, {})
    client.load("a/b")
    client.unload("digits")
    assert v2_server.asked == ["POST /v2/repository/models/a%2Fb/load", "POST /v2/repository/models/digits/unload"]


def test_metadata_of_a_version_or_of_the_newest(client: RepositoryClient, v2_server: Any) -> None:
    v2_server.answers["GET /v2/models/digits"] = (200, {"name": "digits", "versions": ["1", "2"]})
    v2_server.answers["GET /v2/models/digits/versions/1"] = (200, {"name": "digits", "versions": ["1"]})
    assert client.metadata("digits")["versions"] == ["1", "2"]
    assert client.metadata("digits", "1")["versions"] == ["1"]


def test_the_servers_error_comes_back_with_code_message_and_context(client: RepositoryClient, v2_server: Any) -> None:
    body = {"errorCode": "MODEL_NOT_FOUND", "message": "no 'x'", "error": "no 'x'", "context": {"model": "x"}}
    v2_server.answers["GET /v2/models/x"] = (404, body)
    with pytest.raises(InferenceError, match="no 'x'") as caught:
        client.metadata("x")
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND
    assert caught.value.context == {"model": "x"}


@pytest.mark.parametrize(
    ("body", "message"),
    [({"error": "said Triton"}, "said Triton"), (b"<html>", "HTTP 502"), (b"", "HTTP 502"), (["x"], "HTTP 502")],
)
def test_an_error_of_another_server_is_told_as_well_as_can_be(
    client: RepositoryClient, v2_server: Any, body: object, message: str
) -> None:
    v2_server.answers["GET /v2/models/x"] = (502, body)
    with pytest.raises(InferenceError, match=message):
        client.metadata("x")


def test_nothing_that_answers_is_an_error_that_names_the_address() -> None:
    with RepositoryClient(NOWHERE) as client:
        assert not client.ready()
        with pytest.raises(InferenceError, match=NOWHERE) as caught:
            client.index()
    assert caught.value.code is ErrorCode.SYSTEM_NOT_READY


def test_a_server_that_takes_too_long_is_a_timeout(client: RepositoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> httpx.Response:
        raise httpx.ReadTimeout("late")

    monkeypatch.setattr(httpx.Client, "request", late)
    with pytest.raises(InferenceError) as caught:
        client.index()
    assert caught.value.code is ErrorCode.REQUEST_TIMEOUT


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(InferenceError) as caught:
        RepositoryClient("http://x:port")
    assert caught.value.code is ErrorCode.REQUEST_FIELD_INVALID


def test_ready_follows_the_servers_health(client: RepositoryClient, v2_server: Any) -> None:
    assert not client.ready()
    v2_server.answers["GET /q/health/ready"] = (200, {})
    assert client.ready()


def test_grpc_is_live_where_server_live_answers() -> None:
    answer = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ServerLive": answer})
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert grpc_is_live(f"127.0.0.1:{port}", timeout_s=10)
    finally:
        server.stop(None).wait()


def test_grpc_is_not_live_where_nothing_answers() -> None:
    assert not grpc_is_live("127.0.0.1:1")
