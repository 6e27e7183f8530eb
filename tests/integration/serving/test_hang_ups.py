"""Clients that hang up while their requests travel and run together with others' requests."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

NEIGHBOURS = 8
REQUESTS = 40
DIGIT = Path(__file__).resolve().parents[3] / "examples" / "requests" / "digit.json"


def hang_up_until(stop: threading.Event, address: tuple[str, int], body: bytes) -> int:
    """Send requests and close the connection without reading the answer, until told to stop; return how many."""
    count = 0
    head = (
        f"POST /v2/models/digits_onnx/infer HTTP/1.1\r\nHost: trygon\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    while not stop.is_set():
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + body)
        count += 1
    return count


def ask(url: str, offset: int) -> list[int]:
    """Ask for one image and its mirror, `REQUESTS` times; return the digits that came back."""
    image: list[float] = json.loads(DIGIT.read_text())["inputs"][0]["data"]
    found = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(REQUESTS):
            pixels = image if (number + offset) % 2 else image[::-1]
            tensor = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": pixels}
            answer = client.post("/v2/models/digits_onnx/infer", json={"inputs": [tensor], "id": str(number)})
            assert answer.status_code == 200, answer.text
            document = answer.json()
            assert document["id"] == str(number)
            probabilities = document["outputs"][0]["data"]
            found.append(probabilities.index(max(probabilities)))
    return found


def test_a_client_that_hangs_up_never_harms_its_neighbours(server: Any) -> None:
    upright, mirrored = ask(server.http_url, 1)[0], ask(server.http_url, 0)[0]
    assert upright == 9
    url = urlsplit(server.http_url)
    stop = threading.Event()
    with ThreadPoolExecutor(NEIGHBOURS + 2) as threads:
        leavers = [threads.submit(hang_up_until, stop, (url.hostname, url.port), DIGIT.read_bytes()) for _ in range(2)]
        try:
            answers = list(threads.map(ask, [server.http_url] * NEIGHBOURS, range(NEIGHBOURS)))
        finally:
            stop.set()
        assert all(leaver.result() > 0 for leaver in leavers)
    for offset, found in enumerate(answers):
        assert found == [upright if (number + offset) % 2 else mirrored for number in range(REQUESTS)]
