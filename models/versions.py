"""Versions of models: which should be loaded (`VersionSpec`), what became of them (`VersionStatus`)."""

from dataclasses import dataclass, field
from enum import StrEnum

from trygon.models.tensors import TensorSpec


class ModelState(StrEnum):
    """The states of a model version in Triton's repository index."""

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """One model version that should be loaded.

    `model_path` is the model's folder and `path` the version's folder in it. `config` is the serialised `ModelConfig`
    as it was found (not yet completed from the model file). `generation` changes whenever files or configuration do:
    a version whose generation differs is loaded anew. `runner` names the deployment that runs it, such as "onnx-cpu".
    """

    model: str
    version: int
    runner: str
    model_path: str
    path: str
    config: bytes
    generation: str


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a loaded version looks like from outside.

    `config` is the serialised, completed `ModelConfig`. Shapes of `inputs` and `outputs` start with -1 when
    `max_batch_size` is 1 or more. `shares` says whether requests may
    share a batch. `labels` maps an output's name to its class labels, in class order.
    """

    platform: str
    config: bytes
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shares: bool = False


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What became of one model version: its state, why, and what it looks like once it is loaded.

    `generation` is the one that serves; after a failed reload it is the old one and `reason` says why. `attempted` is
    the generation whose load ended last, well or badly.
    """

    model: str
    version: int
    state: ModelState
    reason: str = ""
    generation: str = ""
    attempted: str = ""
    description: ModelDescription | None = None
