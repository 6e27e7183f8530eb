"""Bodies over HTTP: their limits, their compression, and bombs."""

import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from trygon.deployments.api.application import http_application
from trygon.deployments.api.open_inference.body import Encoding, accepted_encoding

URL = "/v2/models/identity_fp32/infer"
LIMIT = 4 * 1024 * 1024
BODY = orjson.dumps(
    {"inputs": [{"name": "INPUT0", "shape": [1, 1000], "datatype": "FP32", "data": [0.0] * 1000}], "id": "1"}
)


async def code_of(http: httpx.AsyncClient, content: bytes, encoding: str = "gzip") -> str:
    response = await http.post(URL, content=content, headers={"Content-Encoding": encoding})
    return str(response.json().get("errorCode", response.status_code))


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
    ],
)
async def test_compressed_bodies_are_read(http: httpx.AsyncClient, encoding: str, content: bytes) -> None:
    assert await code_of(http, content, encoding) == "200"


async def test_a_body_may_arrive_in_pieces(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in gzip.compress(BODY):
            yield bytes([byte])

    response = await http.post(URL, content=pieces(), headers={"Content-Encoding": "gzip"})
    assert response.status_code == 200


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x", "\x80"])
async def test_other_encodings_are_unsupported(http: httpx.AsyncClient, encoding: str) -> None:
    response = await http.post(URL, content=BODY, headers={"Content-Encoding": encoding.encode("latin-1")})
    assert (response.status_code, response.json()["errorCode"]) == (415, "REQUEST_ENCODING_UNSUPPORTED")


@pytest.mark.parametrize(
    "content",
    [b"", BODY, gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"x", gzip.compress(BODY) * 2, zlib.compress(BODY)],
)
async def test_what_is_not_gzip_is_refused(http: httpx.AsyncClient, content: bytes) -> None:
    assert await code_of(http, content) == "REQUEST_ENCODING_INVALID"


@pytest.mark.parametrize("size", [LIMIT + 1, 64 * LIMIT])
async def test_a_bomb_is_refused_before_it_is_whole(http: httpx.AsyncClient, size: int) -> None:
    stream = zlib.compressobj(9, wbits=31)
    block = bytes(min(size, LIMIT))
    content = b"".join(stream.compress(block) for _ in range(size // len(block))) + stream.compress(b"x")
    assert await code_of(http, content + stream.flush()) == "REQUEST_BODY_TOO_LARGE"


async def test_bytes_after_the_end_of_a_compressed_body_are_refused_in_whatever_piece(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield gzip.compress(BODY)
        yield b"more"

    response = await http.post(URL, content=pieces(), headers={"Content-Encoding": "gzip"})
    assert response.json()["errorCode"] == "REQUEST_ENCODING_INVALID"


async def test_a_declared_length_over_the_limit_is_refused_unread(http: httpx.AsyncClient) -> None:
    for length in (str(LIMIT + 1), "9" * 5000):
        response = await http.post(URL, content=b"{}", headers={"Content-Length": length})
        assert (response.status_code, response.json()["errorCode"]) == (413, "REQUEST_BODY_TOO_LARGE")


async def test_an_undeclared_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield bytes(65536)

    response = await http.post(URL, content=pieces())
    assert response.status_code == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_answers_are_compressed_when_asked(http: httpx.AsyncClient, encoding: str) -> None:
    response = await http.post(URL, content=BODY, headers={"Accept-Encoding": encoding})
    assert response.headers["content-encoding"] == encoding
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.json()["outputs"][0]["data"] == [0.0] * 1000


async def test_answers_that_would_not_shrink_are_sent_as_they_are(http: httpx.AsyncClient) -> None:
    body = BODY.replace(b"[1,1000]", b"[1,1]").replace(orjson.dumps([0.0] * 1000), b"[1]")
    response = await http.post(URL, content=body, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in response.headers


async def test_large_answers_are_compressed_in_a_thread_alike(http: httpx.AsyncClient) -> None:
    request = {"inputs": [{"name": "INPUT0", "shape": [1, 300_000], "datatype": "FP32", "data": [0] * 300_000}]}
    response = await http.post(URL, json=request, headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert len(response.json()["outputs"][0]["data"]) == 300_000


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (None, None),
        ("", None),
        ("br", None),
        ("gzip;q=0", None),
        ("gzip; q=0.000, deflate", Encoding.DEFLATE),
        ("br, GZIP;q=0.5", Encoding.GZIP),
        ("deflate, gzip", Encoding.DEFLATE),
    ],
)
def test_accept_encoding_is_understood(header: str | None, encoding: Encoding | None) -> None:
    assert accepted_encoding(header) is encoding


async def test_a_caller_that_hangs_up_while_sending_is_no_fault_of_the_server(
    data_plane: Any, caplog: pytest.LogCaptureFixture
) -> None:
    application = http_application(lambda: data_plane, server_name="trygon", max_body_bytes=LIMIT)
    received = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    await application({"type": "http", "method": "POST", "path": URL, "headers": []}, receive, send)
    assert sent[0]["status"] == 499
    assert not caplog.records
