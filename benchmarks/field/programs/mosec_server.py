"""mosec: one worker with its batching, bytes in and out.

MODEL=folder BATCH_WAIT_S=… python mosec_server.py --port … --max-request-size …
"""

# ruff: noqa: ANN001, ANN201, ANN204 - runs in a peer's environment, in the style of its examples

import os

import numpy as np
from mosec import Server, Worker
from session import Session

FOLDER = os.environ["MODEL"]


class OnnxWorker(Worker):
    """One model."""

    def __init__(self):
        super().__init__()
        self.session = Session(FOLDER)

    def deserialize(self, data):
        """Return the row."""
        return np.frombuffer(data, np.float32).reshape(self.session.shape)

    def forward(self, data):
        """Run the rows that came together, or one row where batching is off."""
        if isinstance(data, list):
            return list(self.session.run_flat(np.stack(data)))
        return self.session.run_flat(data[None])[0]

    def serialize(self, data):
        """Return the numbers' bytes."""
        return data.tobytes()


if __name__ == "__main__":
    batch = max(Session(FOLDER).max_batch_size, 1)
    server = Server()
    server.append_worker(
        OnnxWorker,
        num=1,
        max_batch_size=batch,
        max_wait_time=round(float(os.environ["BATCH_WAIT_S"]) * 1000),
        timeout=60,
    )
    server.run()
