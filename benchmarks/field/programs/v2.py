"""KServe v2 with binary tensors, as little as a server that speaks it must do."""

# ruff: noqa: ANN001, ANN201, B905 - runs in a peer's environment, in the style of its examples

import json

import numpy as np

HEADER = "inference-header-content-length"


def decode(body, header_length):
    """Return the only input of a binary request."""
    offset = int(header_length)
    shape = json.loads(body[:offset])["inputs"][0]["shape"]
    return np.frombuffer(body, np.float32, offset=offset).reshape(shape)


def encode(model, names, outputs):
    """Return (body, headers) of a binary answer."""
    data = [output.tobytes() for output in outputs]
    head = json.dumps(
        {
            "model_name": model,
            "model_version": "1",
            "outputs": [
                {
                    "name": name,
                    "datatype": "FP32",
                    "shape": output.shape,
                    "parameters": {"binary_data_size": len(content)},
                }
                for name, output, content in zip(names, outputs, data)
            ],
        }
    ).encode()
    return b"".join([head, *data]), {HEADER: str(len(head)), "content-type": "application/octet-stream"}
