"""One execution: requests of equal shape become one batch, the batch runs, and its rows go back to their requests."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel
from trygon.models.tensors import Array, Datatype, InferRequest, InferResponse, Tensor, TensorSpec, from_array, to_array
from trygon.models.versions import ModelDescription


@dataclass(frozen=True, slots=True)
class Execution:
    """What one run of the model gave: a response per request in their order, and nanoseconds per phase."""

    responses: tuple[InferResponse, ...]
    rows: int
    input_ns: int
    infer_ns: int
    output_ns: int


def shape_key(request: InferRequest) -> Hashable:
    """Return what must be equal for two requests to share a batch: names, datatypes and shapes without the batch."""
    return tuple(sorted((tensor.name, tensor.datatype, tensor.shape[1:]) for tensor in request.inputs))


class Executor:
    """Runs batches of one loaded version. Blocks, and may be called from several threads at once."""

    def __init__(self, model: LoadedModel, description: ModelDescription, name: str, version: str) -> None:
        self._model = model
        self._batches = description.max_batch_size > 0
        self._outputs = {output.name: output for output in description.outputs}
        self._name = name
        self._version = version

    def __call__(self, requests: Sequence[InferRequest], rows: Sequence[int], queued_ns: Sequence[int]) -> Execution:
        """Run requests of equal `shape_key` as one batch.

        `rows` holds each one's batch size, `queued_ns` the time it has waited. A model that does not batch takes one
        request at a time.

        Raises: RUNNER_INPUT_REJECTED, RUNNER_EXECUTION_FAILED, RUNNER_OUTPUT_INVALID.
        """
        started = time.perf_counter_ns()
        inputs = {tensor.name: self._gather(tensor.name, requests) for tensor in requests[0].inputs}
        assembled = time.perf_counter_ns()
        wanted = self._wanted(requests)
        outputs = self._model.run(inputs, wanted)
        ran = time.perf_counter_ns()
        total = sum(rows)
        for name in wanted:
            self._check_output(self._outputs[name], outputs[name], total)
        responses = self._split(requests, rows, outputs, queued_ns, ran - started)
        return Execution(responses, total, assembled - started, ran - assembled, time.perf_counter_ns() - ran)

    def _gather(self, name: str, requests: Sequence[InferRequest]) -> Array:
        parts = [to_array(_find(request.inputs, name)) for request in requests]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _wanted(self, requests: Sequence[InferRequest]) -> list[str]:
        if any(not request.outputs for request in requests):
            return list(self._outputs)
        named = {output.name for request in requests for output in request.outputs}
        return [name for name in self._outputs if name in named]

    def _check_output(self, spec: TensorSpec, array: Array, rows: int) -> None:
        if self._batches and (array.ndim == 0 or array.shape[0] != rows):
            raise InferenceError(
                ErrorCode.RUNNER_OUTPUT_INVALID,
                f"output '{spec.name}' of model '{self._name}' has shape {list(array.shape)} for {rows} rows",
                model=self._name,
                output=spec.name,
            )
        if spec.datatype is not Datatype.BYTES and array.dtype != spec.datatype.numpy:
            raise InferenceError(
                ErrorCode.RUNNER_OUTPUT_INVALID,
                f"output '{spec.name}' of model '{self._name}' has dtype {array.dtype}, not {spec.datatype}",
                model=self._name,
                output=spec.name,
            )

    def _split(
        self,
        requests: Sequence[InferRequest],
        rows: Sequence[int],
        outputs: dict[str, Array],
        queued_ns: Sequence[int],
        compute_ns: int,
    ) -> tuple[InferResponse, ...]:
        responses = []
        start = 0
        for request, count, waited_ns in zip(requests, rows, queued_ns, strict=True):
            end = start + count
            names = [output.name for output in request.outputs] or list(self._outputs)
            tensors = tuple(
                from_array(
                    name, outputs[name][start:end] if self._batches else outputs[name], self._outputs[name].datatype
                )
                for name in names
            )
            responses.append(
                InferResponse(self._name, self._version, request.id, tensors, queue_ns=waited_ns, compute_ns=compute_ns)
            )
            start = end
        return tuple(responses)


def _find(inputs: tuple[Tensor, ...], name: str) -> Tensor:
    return next(tensor for tensor in inputs if tensor.name == name)
