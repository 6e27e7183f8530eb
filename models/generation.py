"""The fingerprint of a model version on disk, which changes whenever its configuration or files do."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import shorten

MAX_FILES: Final = 100_000
"""Most files and folders of one version; real models have a few, an ONNX one with external data some thousand."""


def generation(config: bytes, extra: Iterable[Path], folder: Path, roots: Sequence[Path]) -> str:
    """Return the fingerprint of a version: of `config`, of `extra` files, and of every file below its `folder`.

    A file counts by its path, size and time of modification; its content is not read. `roots` are resolved folders
    that symbolic links may not leave.

    Raises: MODEL_REPOSITORY_INVALID for a link that leads outside, MODEL_FILE_INVALID for too many files.
    """
    digest = hashlib.blake2b(config, digest_size=16)
    digest.update(os.fsencode(folder))
    for path in extra:
        digest.update(_stamp(path))
    for path in _walk(folder, roots):
        digest.update(_stamp(path))
    return digest.hexdigest()


def check_inside(path: Path, roots: Sequence[Path]) -> Path:
    """Return `path` resolved; wherever symbolic links lead, it must lie in one of the resolved `roots`.

    Raises: MODEL_REPOSITORY_INVALID if it does not, MODEL_FILE_MISSING if there is nothing.
    """
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InferenceError(
            ErrorCode.MODEL_FILE_MISSING, f"'{shorten(str(path))}' is missing or a broken symbolic link"
        ) from error
    if not any(resolved.is_relative_to(root) for root in roots):
        raise InferenceError(
            ErrorCode.MODEL_REPOSITORY_INVALID,
            f"'{shorten(str(path))}' is a symbolic link that leads outside the model repository",
        )
    return resolved


def _walk(folder: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """Yield all files below a folder in a fixed order; a folder that links reach twice is entered once."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    count = 0
    while waiting:
        current = waiting.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in sorted(current.iterdir()):
            if path.is_symlink():
                check_inside(path, roots)
            if path.is_dir():
                waiting.append(path)
            else:
                yield path
            count += 1
            if count > MAX_FILES:
                raise InferenceError(
                    ErrorCode.MODEL_FILE_INVALID, f"'{shorten(str(folder))}' holds more than {MAX_FILES} files"
                )


def _stamp(path: Path) -> bytes:
    try:
        status = path.stat()
    except FileNotFoundError:
        return os.fsencode(f"{path}\0absent\0")
    return os.fsencode(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0")
