"""The real tritonclient.http loads and unloads models; what the data plane hears is checked in test_http_repository."""

from collections.abc import Iterator

import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(http_address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(http_address) as client:
        yield client


def test_a_model_is_loaded_and_unloaded(client: triton.InferenceServerClient) -> None:
    client.load_model("double", config="{}", files={"file:1/model.onnx": b"\x00\xff"})
    client.load_model("double")
    client.unload_model("double", unload_dependents=True)


def test_files_need_a_configuration(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="config"):
        client.load_model("double", files={"file:1/model.onnx": b""})


def test_an_unknown_model_is_told(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="not found"):
        client.load_model("nosuch")
