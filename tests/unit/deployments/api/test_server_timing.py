"""The latency header: where an inference's time went."""

import re

import httpx


async def test_every_inference_says_where_its_time_went(http: httpx.AsyncClient) -> None:
    request = {"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [0]}]}
    response = await http.post("/v2/models/identity_fp32/infer", json=request)
    assert response.status_code == 200
    number = r"\d+\.\d{3}"
    assert re.fullmatch(
        f"queue;dur={number}, compute;dur={number}, total;dur={number}", response.headers["server-timing"]
    )
