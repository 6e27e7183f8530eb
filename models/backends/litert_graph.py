"""One LiteRT interpreter as a function of named arrays."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from trygon.models.backends.signatures import choose_signature
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array, TensorSpec, datatype_of

_MISSING_OPERATOR: Final = ("Select TensorFlow op", "custom op")
"""What LiteRT says of operators that it lacks, whatever the shapes."""


class LitertGraph:
    """A graph with its interpreter, which one thread at a time may call. Inputs are resized to what they are given.

    `inputs` and `outputs` are as the file tells, -1 for a dimension of any size.
    """

    def __init__(self, content: bytes, config: ModelConfig, threads: int) -> None:
        """Build the interpreter. Raises: MODEL_CONFIG_INVALID, TENSOR_DATA_INVALID, and whatever LiteRT raises."""
        interpreter = Interpreter(model_content=content, num_threads=threads)
        _check_operators(interpreter)
        signatures = interpreter.get_signature_list()
        self._graph: Any = (
            interpreter.get_signature_runner(choose_signature(signatures, config))
            if signatures
            else _UnsignedGraph(interpreter)
        )
        self.inputs = _specs(self._graph.get_input_details())
        self.outputs = _specs(self._graph.get_output_details())

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and return copies of all outputs. Raises: whatever LiteRT raises."""
        found: dict[str, Array] = self._graph(**inputs)
        return found

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes that the inputs have now; those of the file before the first call."""
        return _shapes(self._graph.get_input_details())

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes that the outputs had last."""
        return _shapes(self._graph.get_output_details())


class _UnsignedGraph:
    """A file without signatures: the interface of the runtime's SignatureRunner over tensors by their own names."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter

    def get_input_details(self) -> dict[str, Any]:
        return _by_name(self._interpreter.get_input_details())

    def get_output_details(self) -> dict[str, Any]:
        return _by_name(self._interpreter.get_output_details())

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        indices = {name: details["index"] for name, details in self.get_input_details().items()}
        for name, array in inputs.items():
            self._interpreter.resize_tensor_input(indices[name], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in inputs.items():
            self._interpreter.set_tensor(indices[name], array)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(details["index"]) for name, details in self.get_output_details().items()
        }


def _by_name(details: list[dict[str, Any]]) -> dict[str, Any]:
    """Key tensors by name, without what the converter added to it (`serving_default_x:0`) where that is unambiguous."""
    clean = [entry["name"].removeprefix("serving_default_").removesuffix(":0") for entry in details]
    names = clean if all(clean) and len(set(clean)) == len(clean) else [entry["name"] for entry in details]
    return dict(zip(names, details, strict=True))


def _check_operators(interpreter: Any) -> None:
    """Plan the graph, so that an operator that LiteRT lacks fails here and not at the first request."""
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        # Dimensions of any size stand at 1 in the file, which need not be a size that the graph can have.
        flexible = any(-1 in details["shape_signature"] for details in interpreter.get_input_details())
        if not flexible or any(sign in str(error) for sign in _MISSING_OPERATOR):
            raise


def _specs(details: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name,
            datatype_of(np.dtype(entry["dtype"]), tensor=name),
            tuple(
                int(size) for size in (entry["shape_signature"] if len(entry["shape_signature"]) else entry["shape"])
            ),
        )
        for name, entry in details.items()
    )


def _shapes(details: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(int(size) for size in entry["shape"]) for name, entry in details.items()}
