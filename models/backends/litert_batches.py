"""How a LiteRT graph takes batches: resized to their size, split into runs of the graph's own, or not at all.

Most .tflite files have a first dimension fixed at 1. Whether such a graph can be resized is not written in it, so it is
tried once, at load.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.litert_graph import LitertGraph
from trygon.models.tensors import Array, Datatype, TensorSpec


class Batching(Enum):
    """What is done with a batch: nothing (the shape is the graph's), resize the graph, or split the batch."""

    NONE = auto()
    RESIZE = auto()
    SPLIT = auto()


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a graph takes batches; `rows` is the graph's own batch size, of which SPLIT makes its runs."""

    batching: Batching
    rows: int = 1

    def specs(self, tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        """Return the tensors with a first dimension of any size, if the graph takes batches."""
        if self.batching is Batching.NONE:
            return tensors
        return tuple(TensorSpec(spec.name, spec.datatype, (-1, *spec.shape[1:])) for spec in tensors)

    def run(self, graph: LitertGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch of any number of rows.

        Raises: RUNNER_INPUT_REJECTED for empty dimensions and rows that differ; whatever LiteRT raises.
        """
        batched = self.batching is not Batching.NONE
        for name, array in inputs.items():
            if 0 in array.shape[1 if batched else 0 :]:
                # Kernels of LiteRT divide by sizes: an empty dimension may end the process.
                raise _rejected(name, f"has shape {list(array.shape)}; LiteRT takes no empty dimensions")
        if not batched:
            return graph(inputs)
        counts = {array.shape[0] for array in inputs.values()}
        if len(counts) != 1:
            raise _rejected(", ".join(inputs), f"have different numbers of rows: {sorted(counts)}")
        count = counts.pop()
        if count == 0:
            return _empty(graph)
        return graph(inputs) if self.batching is Batching.RESIZE else self._split(graph, inputs, count)

    def _split(self, graph: LitertGraph, inputs: Mapping[str, Array], count: int) -> dict[str, Array]:
        parts = []
        for start in range(0, count, self.rows):
            part = {name: array[start : start + self.rows] for name, array in inputs.items()}
            missing = start + self.rows - count
            if missing > 0:
                part = {name: np.concatenate([array, array[-1:].repeat(missing, 0)]) for name, array in part.items()}
            parts.append(graph(part))
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def plan_batches(graph: LitertGraph, *, wanted: bool) -> BatchPlan:
    """Find out how `graph` takes batches, by running it on zeros.

    A first dimension of any size, or of 1, is taken for a batch; another size only if batches are `wanted`, since it
    may as well be the height of an image.
    """
    tensors = (*graph.inputs, *graph.outputs)
    if not graph.inputs or not all(spec.shape for spec in tensors):
        return BatchPlan(Batching.NONE)
    shapes = graph.input_shapes()
    rows = {shape[0] for shape in shapes.values()}
    plausible = wanted or all(spec.shape[0] in {-1, 1} for spec in graph.inputs)
    if not plausible or len(rows) != 1:
        return BatchPlan(Batching.NONE)
    own = rows.pop()
    if _follows(graph, shapes, own + 1):
        return BatchPlan(Batching.RESIZE)
    if _follows(graph, shapes, own):
        return BatchPlan(Batching.SPLIT, own)
    # Zeros of the smallest sizes may be too little for the graph; then what the file says must do.
    flexible = all(spec.shape[0] == -1 for spec in tensors)
    return BatchPlan(Batching.RESIZE if flexible else Batching.NONE)


def _follows(graph: LitertGraph, shapes: Mapping[str, tuple[int, ...]], rows: int) -> bool:
    """Whether every output has as many rows as the inputs when these have `rows`."""
    zeros = {spec.name: _zeros(spec.datatype, (rows, *shapes[spec.name][1:])) for spec in graph.inputs}
    try:
        outputs = graph(zeros)
    except (RuntimeError, ValueError):
        return False
    return all(array.shape[:1] == (rows,) for array in outputs.values())


def _zeros(datatype: Datatype, shape: tuple[int, ...]) -> Array:
    if datatype is Datatype.BYTES:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype=datatype.numpy)


def _empty(graph: LitertGraph) -> dict[str, Array]:
    """Return outputs of no rows, without a run: see `BatchPlan.run` on empty dimensions."""
    shapes = graph.output_shapes()
    return {spec.name: _zeros(spec.datatype, (0, *shapes[spec.name][1:])) for spec in graph.outputs}


def _rejected(names: str, fault: str) -> InferenceError:
    return InferenceError(ErrorCode.RUNNER_INPUT_REJECTED, f"input '{names}' {fault}", tensor=names)
