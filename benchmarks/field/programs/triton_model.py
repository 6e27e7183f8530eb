"""Triton's python backend: joins the requests that the dynamic batcher hands over, runs and splits them."""

# ruff: noqa: ANN001, ANN201, B905 - runs in a peer's environment, in the style of its examples

import json
import sys

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One model; the parameters `folder` and `programs` say where its file and session.py lie."""

    def initialize(self, args):
        """Open the session."""
        parameters = json.loads(args["model_config"])["parameters"]
        sys.path.insert(0, parameters["programs"]["string_value"])
        from session import Session  # noqa: PLC0415 - found through the parameter

        self.session = Session(parameters["folder"]["string_value"])

    def execute(self, requests):
        """Run one batch."""
        rows = [pb_utils.get_input_tensor_by_name(request, self.session.input).as_numpy() for request in requests]
        values = self.session.run(np.concatenate(rows) if len(rows) > 1 else rows[0])
        answers, start = [], 0
        for row in rows:
            end = start + len(row)
            tensors = [pb_utils.Tensor(name, value[start:end]) for name, value in zip(self.session.outputs, values)]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start = end
        return answers
