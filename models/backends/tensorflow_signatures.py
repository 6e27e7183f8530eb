"""The signatures of a SavedModel as Trygon's: names are the signature's keys, tensors are those of the graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from trygon.errors import InferenceError
from trygon.models.backends.base import Signature
from trygon.models.backends.tensorflow_runtime import tf
from trygon.models.tensors import TensorSpec, datatype_of

PLATFORM: Final = "tensorflow_savedmodel"


@dataclass(frozen=True, slots=True)
class GraphSignature:
    """A signature, and which of the graph's tensors its inputs (`feeds`) and outputs (`tensors`) are.

    `any_rank` holds the inputs whose rank the graph leaves open.
    """

    signature: Signature
    feeds: Mapping[str, str]
    tensors: Mapping[str, str]
    any_rank: frozenset[str]


def read_signatures(definitions: Mapping[str, Any]) -> dict[str, GraphSignature]:
    """Return the signatures that can be served, by name: all but those with resources, sparse tensors and the like."""
    found = {name: _read(definition) for name, definition in sorted(definitions.items())}
    return {name: signature for name, signature in found.items() if signature is not None}


def _read(definition: Any) -> GraphSignature | None:
    # The maps of a protobuf message have no order of their own.
    inputs, outputs = dict(sorted(definition.inputs.items())), dict(sorted(definition.outputs.items()))
    tensors = [*inputs.values(), *outputs.values()]
    if not outputs or any(info.WhichOneof("encoding") != "name" for info in tensors):
        return None
    try:
        given = tuple(_spec(name, info) for name, info in inputs.items())
        answered = tuple(_spec(name, info) for name, info in outputs.items())
    except (InferenceError, KeyError, TypeError):  # a dtype that TensorFlow, numpy or KServe does not have
        return None
    batches = bool(given) and all(spec.shape[:1] == (-1,) for spec in (*given, *answered))
    return GraphSignature(
        Signature(PLATFORM, given, answered, batches),
        {name: info.name for name, info in inputs.items()},
        {name: info.name for name, info in outputs.items()},
        frozenset(name for name, info in inputs.items() if info.tensor_shape.unknown_rank),
    )


def _spec(name: str, info: Any) -> TensorSpec:
    dtype = np.dtype(tf.dtypes.as_dtype(info.dtype).base_dtype.as_numpy_dtype)
    shape = tuple(dimension.size if dimension.size >= 0 else -1 for dimension in info.tensor_shape.dim)
    return TensorSpec(name, datatype_of(dtype, tensor=name), shape)
