"""KServe's Python SDK: one Model per ONNX file, REST with binary tensors and gRPC.

MODELS=name=folder,… python kserve_server.py --http_port … --grpc_port …
"""

# ruff: noqa: ANN001, ANN201, ANN204, B905 - runs in a peer's environment, in the style of its examples

import argparse
import os

from kserve import InferOutput, InferResponse, Model, ModelServer, model_server
from session import Session


class OnnxModel(Model):
    """One model."""

    def __init__(self, name, folder):
        super().__init__(name)
        self.session = Session(folder)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 - the SDK's signature
        """Run one request; the SDK does not batch."""
        outputs = []
        for name, value in zip(self.session.outputs, self.session.run(payload.inputs[0].as_numpy())):
            output = InferOutput(name, list(value.shape), "FP32")
            output.set_data_from_numpy(value, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id, self.name, outputs, use_binary_outputs=True)


if __name__ == "__main__":
    arguments, _ = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
    models = [OnnxModel(*pair.split("=", 1)) for pair in os.environ["MODELS"].split(",")]
    ModelServer(http_port=arguments.http_port, grpc_port=arguments.grpc_port, workers=1, access_log_format=None).start(
        models
    )
