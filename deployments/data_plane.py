"""The one set of verbs behind every door: HTTP, gRPC and handle calls translate, then ask the data plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trygon.models.statistics import ModelStatistics
from trygon.models.tensors import InferRequest, InferResponse
from trygon.models.versions import ModelDescription, VersionStatus


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model version that was asked about: which was chosen, which are ready, and its tensors."""

    name: str
    version: str
    versions: tuple[str, ...]
    description: ModelDescription


class DataPlane(Protocol):
    """What a protocol may ask. An empty version leaves the choice to the model's version policy."""

    async def server_ready(self) -> bool:
        """Whether every model that should be loaded has a live replica."""
        ...

    async def model_ready(self, name: str, version: str = "") -> bool:
        """Whether the version can answer now.

        Raises: MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, MODEL_VERSION_INVALID.
        """
        ...

    async def model(self, name: str, version: str = "") -> ServedModel:
        """Describe a version that is ready.

        Raises: MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, MODEL_VERSION_INVALID, MODEL_LOADING, MODEL_UNAVAILABLE.
        """
        ...

    async def infer(self, request: InferRequest) -> InferResponse:
        """Check the request against the model's tensors, run it and answer with tensors in the order asked for.

        Raises: what `model` raises, TENSOR_…, REQUEST_TIMEOUT, RUNNER_….
        """
        ...

    async def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        """Statistics of one version, all versions of a model, or (with no name) all models.

        Raises: MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, MODEL_VERSION_INVALID.
        """
        ...

    async def index(self, *, ready_only: bool = False) -> Sequence[VersionStatus]:
        """All versions of the repository that are known, sorted by name and version."""
        ...

    async def load(self, name: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model and wait for it. `config` is ModelConfig as JSON, `files` are paths and contents.

        Raises: MODEL_CONTROL_DISABLED, MODEL_NAME_INVALID, MODEL_NOT_FOUND, MODEL_LOAD_FAILED, MODEL_CONFIG_INVALID.
        """
        ...

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Unload all versions of a model; returns once its memory was asked back.

        Raises: MODEL_CONTROL_DISABLED, MODEL_NAME_INVALID, MODEL_NOT_FOUND.
        """
        ...
