"""LitServe: one LitAPI with its batching.

MODEL=folder BATCH_WAIT_S=… python litserve_server.py PORT
"""

# ruff: noqa: ANN001, ANN201 - runs in a peer's environment, in the style of its examples

import os
import sys

import litserve
import numpy as np
from session import Session


class OnnxAPI(litserve.LitAPI):
    """One model."""

    def setup(self, device):  # noqa: ARG002 - the library's signature
        """Open the session."""
        self.session = Session(os.environ["MODEL"])

    def decode_request(self, request):
        """Return the row."""
        return np.array(request["x"], np.float32)

    def batch(self, inputs):
        """Join rows."""
        return np.stack(inputs)

    def predict(self, batch):
        """Run rows that came together, or one row where batching is off."""
        if batch.ndim > len(self.session.shape):
            return self.session.run_flat(batch)
        return self.session.run_flat(batch[None])[0]

    def unbatch(self, output):
        """Return the rows."""
        return list(output)

    def encode_response(self, output):
        """Return the numbers."""
        return output.tolist()


if __name__ == "__main__":
    batch = max(Session(os.environ["MODEL"]).max_batch_size, 1)
    api = OnnxAPI(max_batch_size=batch, batch_timeout=float(os.environ["BATCH_WAIT_S"]) if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
