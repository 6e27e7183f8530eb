"""Whatever is sent over HTTP, the server never fails: any 5xx says "unsupported" or "unavailable"."""

import asyncio
import gzip
from typing import Any

import httpx
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trygon.models.tensors import Datatype

ROUTES = (
    "/v2/models/identity_fp32/infer",
    "/v2/models/identity_bytes/versions/1/infer",
    "/v2/repository/index",
    "/v2/repository/models/double/load",
    "/v2/repository/models/double/unload",
)
# The fixture is one data plane for all examples, which is the point: it goes on serving.
RUN = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


def noisy(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, sometimes anything at all."""
    return good | good | good | json_values


PARAMETERS = (
    "binary_data_size",
    "binary_data",
    "binary_data_output",
    "classification",
    "priority",
    "timeout",
    "sequence_id",
    "triton_x",
    "headers",
    "shared_memory_region",
    "config",
    "file:1/m",
    "file:../m",
    "unload_dependents",
    "own",
)
parameters = st.dictionaries(st.sampled_from(PARAMETERS), noisy(st.booleans() | st.integers(-1, 20)), max_size=3)
tensors = st.fixed_dictionaries(
    {
        "name": noisy(st.sampled_from(["INPUT0", "OUTPUT0"])),
        "shape": noisy(st.lists(st.integers(-1, 3) | st.integers(), max_size=3)),
        "datatype": noisy(st.sampled_from([str(datatype) for datatype in Datatype])),
    },
    optional={"data": noisy(st.lists(scalars, max_size=6)), "parameters": noisy(parameters)},
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "id": noisy(st.text(max_size=5)),
        "inputs": noisy(st.lists(noisy(tensors), max_size=3)),
        "outputs": noisy(st.lists(noisy(tensors), max_size=3)),
        "parameters": noisy(parameters),
        "ready": noisy(st.booleans()),
    },
)


def dumped(document: Any) -> bytes:
    # What JSON lacks (integers beyond 64 bits, lone surrogates) still goes out as text of some kind.
    try:
        return orjson.dumps(document, default=str)
    except TypeError:
        return str(document).encode("utf-8", "replace")


def check(http: httpx.AsyncClient, url: str, content: bytes, headers: dict[str, bytes]) -> None:
    response = asyncio.run(http.post(url, content=content, headers=headers))
    assert response.status_code < 500 or response.status_code in {501, 503}
    if response.status_code >= 400:
        assert set(response.json()) >= {"error", "errorCode", "message", "requestId", "retryable"}


@RUN
@given(url=st.sampled_from(ROUTES), document=documents, binary=st.binary(max_size=32), headed=st.booleans())
def test_almost_good_documents(
    http: httpx.AsyncClient, url: str, document: Any, binary: bytes, *, headed: bool
) -> None:
    text = dumped(document)
    headers = {"Inference-Header-Content-Length": str(len(text)).encode()} if headed else {}
    check(http, url, text + binary if headed else text, headers)


@RUN
@given(url=st.sampled_from(ROUTES), content=st.binary(max_size=200), length=st.integers(-5, 250), packed=st.booleans())
def test_random_bytes(http: httpx.AsyncClient, url: str, content: bytes, length: int, *, packed: bool) -> None:
    headers = {"Inference-Header-Content-Length": str(length).encode()}
    if packed:
        content, headers["Content-Encoding"] = gzip.compress(content), b"gzip"
    check(http, url, content, headers)


@RUN
@given(
    name=st.sampled_from(
        ["Inference-Header-Content-Length", "Content-Encoding", "Accept-Encoding", "X-Request-ID", "Content-Length"]
    ),
    value=st.binary(max_size=20).filter(lambda value: b"\n" not in value and b"\r" not in value),
)
def test_random_headers(http: httpx.AsyncClient, name: str, value: bytes) -> None:
    check(http, ROUTES[0], b'{"inputs":[]}', {name: value})


@RUN
@given(parts=st.lists(st.text(min_size=1, max_size=6) | st.sampled_from(["models", "..", "infer", "v2"]), max_size=5))
def test_random_paths(http: httpx.AsyncClient, parts: list[str]) -> None:
    path = "/v2/" + "/".join("".join(f"%{byte:02x}" for byte in part.encode("utf-8", "replace")) for part in parts)
    check(http, path, b"{}", {})
