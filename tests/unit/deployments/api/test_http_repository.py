"""The model repository over HTTP: index, load and unload."""

import base64
from typing import Any

import httpx
import pytest

from trygon.models.versions import ModelState

LOAD = "/v2/repository/models/double/load"
UNLOAD = "/v2/repository/models/double/unload"


async def test_the_index_lists_all_models_or_the_ready_ones(http: httpx.AsyncClient, data_plane: Any) -> None:
    data_plane.models["double"].state = ModelState.UNAVAILABLE
    everything = (await http.post("/v2/repository/index")).json()
    ready = (await http.post("/v2/repository/index", json={"ready": True})).json()
    assert {"name": "double", "version": "1", "state": "UNAVAILABLE", "reason": "on its way"} in everything
    assert [entry for entry in everything if entry["name"] != "double"] == ready


async def test_a_model_is_loaded_with_configuration_and_files(http: httpx.AsyncClient, data_plane: Any) -> None:
    parameters = {"config": "{}", "file:1/model.onnx": base64.b64encode(b"\x00\xff").decode()}
    response = await http.post(LOAD, json={"parameters": parameters})
    assert (response.status_code, response.content) == (200, b"")
    assert data_plane.loads == [("double", "{}", {"1/model.onnx": b"\x00\xff"})]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"parameters": {}}'])
async def test_a_model_is_loaded_as_it_lies_in_the_repository(
    http: httpx.AsyncClient, data_plane: Any, content: bytes
) -> None:
    assert (await http.post(LOAD, content=content)).status_code == 200
    assert data_plane.loads == [("double", None, {})]


async def test_a_model_is_unloaded(http: httpx.AsyncClient, data_plane: Any) -> None:
    response = await http.post(UNLOAD, json={"parameters": {"unload_dependents": True}})
    assert (response.status_code, response.content) == (200, b"")
    assert (await http.post(UNLOAD)).status_code == 200
    assert data_plane.unloads == [("double", True), ("double", False)]


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        (LOAD, {"config": 1}),
        (LOAD, {"config": None}),
        (LOAD, {"file:1/model.onnx": ""}),
        (LOAD, {"config": "{}", "file:1/model.onnx": "?"}),
        (LOAD, {"config": "{}", "file:1/model.onnx": "ä"}),
        (LOAD, {"config": "{}", "file:1/model.onnx": 5}),
        (LOAD, {"config": "{}", "file:../escape": ""}),
        (LOAD, {"config": "{}", "file:/etc/passwd": ""}),
        (LOAD, {"config": "{}", "file:": ""}),
        (LOAD, {"other": 1}),
        (UNLOAD, {"unload_dependents": 1}),
        (UNLOAD, {"other": True}),
    ],
)
async def test_bad_parameters_are_refused(http: httpx.AsyncClient, url: str, parameters: dict[str, Any]) -> None:
    response = await http.post(url, json={"parameters": parameters})
    assert (response.status_code, response.json()["errorCode"]) == (400, "REQUEST_PARAMETER_INVALID")


@pytest.mark.parametrize("content", [b"[]", b'{"parameters": 1}', b"x"])
async def test_a_bad_document_is_refused(http: httpx.AsyncClient, content: bytes) -> None:
    assert (await http.post(LOAD, content=content)).status_code == 400


async def test_an_unknown_model_is_404(http: httpx.AsyncClient) -> None:
    assert (await http.post("/v2/repository/models/nosuch/load")).status_code == 404
