"""BentoML: one service with its adaptive batching; `bentoml serve bentoml_service:Onnx`, MODEL names the folder."""

# ruff: noqa: ANN204 - runs in a peer's environment, in the style of its examples

import os

import bentoml
import numpy as np
from session import Session

BATCH = max(Session(os.environ["MODEL"]).max_batch_size, 1)


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Onnx:
    """One model."""

    def __init__(self):
        self.session = Session(os.environ["MODEL"])

    @bentoml.api(batchable=BATCH > 1, max_batch_size=BATCH)
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run the rows that came together."""
        return self.session.run_flat(x.astype(np.float32, copy=False))
