"""A model of the benchmark in ONNX Runtime on one thread: the same for every peer."""

# ruff: noqa: ANN001, ANN201, ANN204 - runs in a peer's environment, in the style of its examples

import json
from pathlib import Path

import numpy as np
import onnxruntime


class Session:
    """The model in `folder` (see field/models.py)."""

    def __init__(self, folder):
        folder = Path(folder)
        about = json.loads((folder / "about.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if about["library"]:
            options.register_custom_ops_library(str(folder / about["library"]))
        self.input = about["input"]
        self.outputs = about["outputs"]
        self.shape = tuple(about["shape"])
        self.max_batch_size = about["max_batch_size"]
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def run(self, batch):
        """Return the outputs for float32 [rows, *shape]."""
        return self._session.run(self.outputs, {self.input: batch})

    def run_flat(self, batch):
        """Return all outputs as one array [rows, numbers], for formats without named tensors."""
        outputs = [output.reshape(len(batch), -1) for output in self.run(batch)]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)
