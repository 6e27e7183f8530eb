"""The model repository: folders that hold one folder per model, looked at anew each time they are asked about."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import config_from_json
from trygon.models.entry import ModelEntry, read_entry
from trygon.models.names import check_name, shorten
from trygon.models.overrides import materialise

_IGNORED: Final = frozenset({"lost+found"})
"""Folders that every ext4 volume has at its root."""


@dataclass(frozen=True, slots=True)
class RepositoryScan:
    """What a look at all roots found: models, and for broken ones the reason. A name is in one of the two."""

    entries: dict[str, ModelEntry] = field(default_factory=dict)
    faults: dict[str, InferenceError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RepositoryChanges:
    """Names of models that differ between two scans, sorted; a model that breaks or heals is modified."""

    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]


class ModelRepository:
    """One or more root folders. Hidden folders and all files at a root are ignored.

    `gpus` says whether models that do not choose a device may run on CUDA.
    """

    def __init__(self, roots: Sequence[Path], *, gpus: bool = False) -> None:
        """Raises: MODEL_REPOSITORY_INVALID if a root is no folder."""
        # A root that is given twice, or by a link as well, holds each model once.
        self._roots = tuple(dict.fromkeys(_resolve_root(root) for root in roots))
        self._gpus = gpus

    def scan(self) -> RepositoryScan:
        """Look at all models. One that is broken becomes a fault and hides no other.

        Raises: MODEL_REPOSITORY_INVALID if a root cannot be read at all: its models are not gone, they are unknown.
        """
        folders: dict[str, list[Path]] = {}
        for root in self._roots:
            for folder in _folders(root):
                folders.setdefault(folder.name, []).append(folder)
        scan = RepositoryScan()
        for name, found in sorted(folders.items()):
            try:
                scan.entries[name] = self._read(name, found)
            except InferenceError as error:
                scan.faults[shorten(name)] = error
        return scan

    def entry(self, name: str) -> ModelEntry:
        """Look at one model.

        Raises: MODEL_NAME_INVALID, MODEL_NOT_FOUND, MODEL_REPOSITORY_CONFLICT, and what `read_entry` raises.
        """
        return self._read(name, self._find(name))

    def override(self, name: str, config: str | None, files: Mapping[str, bytes], *, into: Path) -> ModelEntry:
        """Return a model as a caller of the load API wants it.

        `config` is ModelConfig as JSON and takes the place of the repository's. `files`, if any, take the place of the
        repository's whole model folder; they are written below `into` (see `materialise`). Source: Triton's model
        repository extension, "Load".

        Raises: REQUEST_PARAMETER_INVALID if there are files without a configuration, MODEL_CONFIG_UNSUPPORTED for
        libraries of custom operators, and what `entry`, `config_from_json` and `materialise` raise.
        """
        check_name(name)
        if config is None:
            raise InferenceError(
                ErrorCode.REQUEST_PARAMETER_INVALID,
                f"failed to load '{name}': give the parameter 'config' along with files",
                model=name,
            )
        given = config_from_json(config)
        if given.model_operations.op_library_filename:
            raise InferenceError(
                ErrorCode.MODEL_CONFIG_UNSUPPORTED,
                f"failed to load '{name}': model_operations runs native code, so only the repository's own "
                "configuration may ask for it",
                model=name,
                setting="model_operations",
            )
        if not files:
            folder = self._only(name, self._find(name))
            return read_entry(folder, self._roots, gpus=self._gpus, config=given)
        folder = materialise(name, given, files, into)
        return read_entry(folder, (into.resolve(),), gpus=self._gpus)

    def _find(self, name: str) -> list[Path]:
        check_name(name)
        return [root / name for root in self._roots if (root / name).is_dir()]

    def _read(self, name: str, folders: Sequence[Path]) -> ModelEntry:
        check_name(name)
        folder = self._only(name, folders)
        return read_entry(folder, self._roots, gpus=self._gpus)

    def _only(self, name: str, folders: Sequence[Path]) -> Path:
        if not folders:
            raise InferenceError(
                ErrorCode.MODEL_NOT_FOUND, f"failed to load '{name}': no such model in the repository", model=name
            )
        if len(folders) > 1:
            raise InferenceError(
                ErrorCode.MODEL_REPOSITORY_CONFLICT,
                f"model '{name}' appears in two or more repositories: {', '.join(str(path) for path in folders)}",
                model=name,
            )
        return folders[0]


def changes(old: RepositoryScan, new: RepositoryScan) -> RepositoryChanges:
    """Return what changed from one scan to the next."""
    before, after = _states(old), _states(new)
    return RepositoryChanges(
        added=tuple(sorted(after.keys() - before.keys())),
        modified=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def _states(scan: RepositoryScan) -> dict[str, object]:
    """Return by name what makes a model another one."""
    return {name: entry.specs for name, entry in scan.entries.items()} | {
        name: (fault.code, fault.message) for name, fault in scan.faults.items()
    }


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as found:
            return [
                Path(item.path)
                for item in found
                if not item.name.startswith(".") and item.name not in _IGNORED and item.is_dir()
            ]
    except OSError as error:
        raise InferenceError(
            ErrorCode.MODEL_REPOSITORY_INVALID, f"model repository '{root}' cannot be read: {error.strerror}"
        ) from error


def _resolve_root(root: Path) -> Path:
    if not root.is_dir():
        raise InferenceError(
            ErrorCode.MODEL_REPOSITORY_INVALID, f"model repository '{root}' is no folder", repository=str(root)
        )
    return root.resolve()
