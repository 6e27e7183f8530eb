"""One model's folder, read: its configuration, the versions it has, and the ones that should be loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import (
    CONFIG_FILENAME,
    FRAMEWORKS,
    MAX_CONFIG_BYTES,
    MODEL_FILENAMES,
    backend_of,
    parse_config,
)
from trygon.models.constraints import check_config
from trygon.models.generation import check_inside, generation
from trygon.models.policy import absent_versions, parse_version_folder, wanted_versions
from trygon.models.proto.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trygon.models.versions import VersionSpec

_GPU_FRAMEWORKS: Final = frozenset({"onnx", "tensorflow"})
"""Frameworks whose runtimes here run on CUDA."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of a repository.

    `config` is what was found, with name and backend filled in. `versions` are all that the folder has, `specs` those
    that the version policy wants, `absent` those that it names and the folder lacks; all ascending.
    """

    name: str
    path: Path
    config: ModelConfig
    versions: tuple[int, ...]
    absent: tuple[int, ...]
    specs: tuple[VersionSpec, ...]


def read_entry(path: Path, roots: Sequence[Path], *, gpus: bool, config: ModelConfig | None = None) -> ModelEntry:
    """Read the model folder `path`; `config` replaces the one in it.

    `roots` are resolved folders; links in the model's folder may lead anywhere in them (a Kubernetes ConfigMap is made
    of such links), and nowhere else. `gpus` says whether models that do not choose a device may run on CUDA.

    Raises: MODEL_NAME_INVALID, MODEL_CONFIG_INVALID, MODEL_CONFIG_UNSUPPORTED, MODEL_BACKEND_UNKNOWN,
    MODEL_FILE_MISSING, MODEL_FILE_INVALID, MODEL_REPOSITORY_INVALID.
    """
    try:
        return _read(path, roots, gpus=gpus, config=config)
    except OSError as error:  # no permission, or a file that went while it was looked at
        raise InferenceError(
            ErrorCode.MODEL_FILE_INVALID,
            f"model '{path.name}' cannot be read: {error.strerror}",
            model=path.name,
        ) from error


def _read(path: Path, roots: Sequence[Path], *, gpus: bool, config: ModelConfig | None) -> ModelEntry:
    check_inside(path, roots)
    found = ModelConfig()
    found.CopyFrom(_read_config(path, roots) if config is None else config)
    check_config(found, folder=path.name)
    found.name = path.name
    versions = _read_versions(path)
    wanted = wanted_versions(found.version_policy, versions)
    if not wanted:
        raise InferenceError(
            ErrorCode.MODEL_FILE_MISSING,
            f"at least one version must be available under the version policy of model '{found.name}'; versions are"
            " folders called 1, 2 and so on",
            model=found.name,
        )
    found.backend = _find_backend(found, path, wanted)
    if found.model_operations.op_library_filename and found.backend != "onnxruntime":
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID,
            f"model '{found.name}': model_operations is for ONNX models, and this one runs on {found.backend}",
            model=found.name,
            field="model_operations",
        )
    return ModelEntry(
        name=found.name,
        path=path,
        config=found,
        versions=versions,
        absent=absent_versions(found.version_policy, versions),
        specs=tuple(_spec(found, path, version, roots, gpus=gpus) for version in wanted),
    )


def runner_of(config: ModelConfig, *, gpus: bool) -> str:
    """Return the name of the runner deployment for a configuration whose backend is known, such as "onnx-cpu".

    KIND_GPU is CUDA, KIND_CPU is CPU; what does not choose runs on CUDA if `gpus` are there for it.
    """
    framework = FRAMEWORKS[backend_of(config)]
    kinds = {group.kind for group in config.instance_group} or {ModelInstanceGroup.KIND_AUTO}
    chosen = ModelInstanceGroup.KIND_GPU in kinds
    free = ModelInstanceGroup.KIND_CPU not in kinds and gpus and framework in _GPU_FRAMEWORKS
    return f"{framework}-{'cuda' if chosen or free else 'cpu'}"


def _read_config(folder: Path, roots: Sequence[Path]) -> ModelConfig:
    path = folder / CONFIG_FILENAME
    if not path.exists() and not path.is_symlink():
        return ModelConfig()
    check_inside(path, roots)
    source = f"{folder.name}/{CONFIG_FILENAME}"
    if not path.is_file():
        raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"{source} is no file", source=source)
    with path.open("rb") as file:
        content = file.read(MAX_CONFIG_BYTES + 1)
    try:
        return parse_config(content.decode(), source=source)
    except UnicodeDecodeError as error:
        raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"{source} is no UTF-8 text", source=source) from error


def _read_versions(folder: Path) -> tuple[int, ...]:
    found = {parse_version_folder(path.name) for path in folder.iterdir() if path.is_dir()}
    return tuple(sorted(version for version in found if version is not None))


def _find_backend(config: ModelConfig, folder: Path, wanted: Sequence[int]) -> str:
    """Return the backend that the configuration names, or the one whose model file the versions hold."""
    if config.backend or config.platform or config.default_model_filename:
        return backend_of(config)
    found = {
        backend
        for version in wanted
        for backend, filename in MODEL_FILENAMES.items()
        if (folder / str(version) / filename).exists()
    }
    names = ", ".join(MODEL_FILENAMES.values())
    if not found:
        raise InferenceError(
            ErrorCode.MODEL_FILE_MISSING,
            f"no version folder of model '{config.name}' holds one of {names}",
            model=config.name,
        )
    if len(found) > 1:
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID,
            f"model '{config.name}' has files for {', '.join(sorted(found))}: set backend in {CONFIG_FILENAME}",
            model=config.name,
        )
    return found.pop()


def _spec(config: ModelConfig, folder: Path, version: int, roots: Sequence[Path], *, gpus: bool) -> VersionSpec:
    path = folder / str(version)
    check_inside(path, roots)
    content = config.SerializeToString(deterministic=True)
    beside = [folder / output.label_filename for output in config.output if output.label_filename]
    beside += [folder / filename for filename in config.model_operations.op_library_filename]
    return VersionSpec(
        model=config.name,
        version=version,
        runner=runner_of(config, gpus=gpus),
        model_path=str(folder),
        path=str(path),
        config=content,
        generation=generation(content, beside, path, roots),
    )
