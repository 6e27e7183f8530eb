"""What every runtime offers: load a version's files, say what its tensors are, run batches, give the memory back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array, TensorSpec


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how wide a model runs.

    `device` is "cpu", "cuda" or "tpu", `device_index` counts among the devices that the replica sees. `instances` is
    how many calls of `LoadedModel.run` may be under way at once, `threads` how many threads each of them gets.
    """

    device: str = "cpu"
    device_index: int = 0
    instances: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of a model file as the runtime tells them; -1 stands for a dimension of any size.

    `platform` is Triton's platform string, such as "onnxruntime_onnx". `batches` says whether the first dimension of
    every tensor is a batch dimension of any size, as far as the file tells.
    """

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: bool


class LoadedModel(Protocol):
    """A model version in memory. `run` may be called from several threads at once, at most `Placement.instances`."""

    @property
    def signature(self) -> Signature:
        """The model file's tensors."""
        ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run one batch; blocks. BYTES tensors are object arrays of `bytes`.

        Raises: RUNNER_INPUT_REJECTED when the runtime refuses the input, TENSOR_DATA_INVALID for BYTES that it cannot
        hold, DEVICE_OUT_OF_MEMORY, and RUNNER_EXECUTION_FAILED for any other failure.
        """
        ...

    def close(self) -> None:
        """Give the memory back. May be called twice; never while a run is under way."""
        ...


class Backend(Protocol):
    """One runtime."""

    def load(self, path: Path, config: ModelConfig, placement: Placement) -> LoadedModel:
        """Load the version in folder `path` (see `config.default_model_filename`); blocks.

        Raises: MODEL_FILE_MISSING, MODEL_FILE_INVALID (with the runtime's reason), MODEL_CONFIG_INVALID,
        DEVICE_UNSUPPORTED, DEVICE_UNAVAILABLE, DEVICE_OUT_OF_MEMORY.
        """
        ...
