"""Requests as bytes, made once, and the check of an answer's bytes, for each wire format."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from tritonclient.grpc import service_pb2

from field.works import CONSTANT, Array, Work

_HEADER_LENGTH: Final = re.compile(rb"(?i)\r\ninference-header-content-length: *(\d+)")
_TOLERANCE: Final = 2e-3
"""Answers of different onnxruntime versions and batch sizes differ in the last bits."""


class Format(Protocol):
    """How a server wants a row, and how it answers."""

    def request(self, work: Work, about: dict[str, Any], row: Array) -> bytes:
        """Return a whole HTTP request."""
        ...

    def answer(self, about: dict[str, Any], head: bytes, body: bytes) -> list[Array]:
        """Return the outputs in the model's order; raises ValueError, KeyError or IndexError for any other answer."""
        ...


def http_request(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    """Return an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class V2Binary:
    """KServe v2 with Triton's binary tensor extension both ways."""

    def request(self, work: Work, about: dict[str, Any], row: Array) -> bytes:
        """See `Format`."""
        data = row.tobytes()
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": about["input"],
                        "shape": [1, *row.shape],
                        "datatype": "FP32",
                        "parameters": {"binary_data_size": len(data)},
                    }
                ],
                "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in about["outputs"]],
            }
        ).encode()
        length = f"Inference-Header-Content-Length: {len(head)}"
        kind = "Content-Type: application/octet-stream"
        return http_request(f"/v2/models/{work.name}/infer", head + data, length, kind)

    def answer(self, about: dict[str, Any], head: bytes, body: bytes) -> list[Array]:
        """See `Format`."""
        found = _HEADER_LENGTH.search(head)
        if found is None:
            raise ValueError("the answer is not binary")
        offset = int(found[1])
        values = {}
        for output in json.loads(body[:offset])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            values[output["name"]] = np.frombuffer(body[offset : offset + size], np.float32).reshape(output["shape"])
            offset += size
        return [values[name] for name in about["outputs"]]


class V2Json:
    """KServe v2 with tensors as JSON."""

    def request(self, work: Work, about: dict[str, Any], row: Array) -> bytes:
        """See `Format`."""
        tensor = {"name": about["input"], "shape": [1, *row.shape], "datatype": "FP32", "data": row.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]}).encode()
        return http_request(f"/v2/models/{work.name}/infer", body, "Content-Type: application/json")

    def answer(self, about: dict[str, Any], head: bytes, body: bytes) -> list[Array]:
        """See `Format`."""
        del head
        outputs = {output["name"]: output for output in json.loads(body)["outputs"]}
        return [
            np.array(outputs[name]["data"], np.float32).reshape(outputs[name]["shape"]) for name in about["outputs"]
        ]


class PlainJson:
    """A JSON object with the row in, the outputs as one flat list of numbers out."""

    def __init__(self, path: str, *, batched: bool = False) -> None:
        self._path = path
        self._batched = batched

    def request(self, work: Work, about: dict[str, Any], row: Array) -> bytes:
        """See `Format`."""
        del work, about
        body = json.dumps({"x": (row[None] if self._batched else row).tolist()}).encode()
        return http_request(self._path, body, "Content-Type: application/json")

    def answer(self, about: dict[str, Any], head: bytes, body: bytes) -> list[Array]:
        """See `Format`."""
        del about, head
        return [np.array(json.loads(body), np.float32).ravel()]


class RawBytes:
    """The row's bytes in, all outputs' bytes out."""

    def __init__(self, path: str) -> None:
        self._path = path

    def request(self, work: Work, about: dict[str, Any], row: Array) -> bytes:
        """See `Format`."""
        del work, about
        return http_request(self._path, row.tobytes(), "Content-Type: application/octet-stream")

    def answer(self, about: dict[str, Any], head: bytes, body: bytes) -> list[Array]:
        """See `Format`."""
        del about, head
        return [np.frombuffer(body, np.float32)]


def constant_request() -> bytes:
    """Return the request for the answer that no model is needed for."""
    return http_request("/v2/health/live", b"", method="GET")


def grpc_message(work: Work, about: dict[str, Any], row: Array, request_id: str = "") -> bytes:
    """Return a serialised ModelInferRequest with the row as raw bytes."""
    message = service_pb2.ModelInferRequest(model_name=work.name, id=request_id)
    message.inputs.add(name=about["input"], datatype="FP32", shape=[1, *row.shape])
    message.raw_input_contents.append(row.tobytes())
    return bytes(message.SerializeToString())


def grpc_answer(about: dict[str, Any], message: bytes) -> list[Array]:
    """Return the outputs of a serialised ModelInferResponse; raises ValueError or KeyError for any other."""
    answer = service_pb2.ModelInferResponse.FromString(message)
    values = {
        output.name: np.frombuffer(raw, np.float32).reshape(list(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    return [values[name] for name in about["outputs"]]


def agrees(outputs: Sequence[Array], expected: Sequence[Array]) -> bool:
    """Say whether outputs are the expected ones, whatever their shapes."""
    given = np.concatenate([output.ravel() for output in outputs])
    wanted = np.concatenate([output.ravel() for output in expected])
    return given.shape == wanted.shape and bool(np.allclose(given, wanted, rtol=_TOLERANCE, atol=_TOLERANCE))


__all__ = [
    "CONSTANT",
    "Format",
    "PlainJson",
    "RawBytes",
    "V2Binary",
    "V2Json",
    "agrees",
    "constant_request",
    "grpc_answer",
    "grpc_message",
    "http_request",
]
