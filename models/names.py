"""Names of models and of files in a model's folder: which are allowed, and how none of them leaves its folder."""

import re
from pathlib import Path, PurePosixPath
from typing import Final

from trygon.errors import ErrorCode, InferenceError

MAX_NAME_BYTES: Final = 255
"""Longest name of a model or file: what file systems allow for one folder entry."""
MAX_PATH_PARTS: Final = 16
"""Deepest path below a model's folder that is accepted from a caller."""

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_PATH_PART: Final = re.compile(r"[^\x00-\x1f\x7f/\\]+")


def check_name(name: str) -> None:
    """Check that a model may be called `name`.

    Letters, digits, `_`, `.` and `-`, at most 255 of them, no leading `.` or `-`, no `..`.

    Raises: MODEL_NAME_INVALID.
    """
    if len(name) > MAX_NAME_BYTES or ".." in name or not _MODEL_NAME.fullmatch(name):
        shown = shorten(name)
        raise InferenceError(ErrorCode.MODEL_NAME_INVALID, f"'{shown}' is no valid model name", model=shown)


def relative_path(text: str) -> PurePosixPath:
    """Return `text` as a path that stays below the folder it is joined to, as far as its letters tell.

    Raises: REQUEST_PARAMETER_INVALID for empty, absolute, hidden, too long or too deep paths, and for `..`.
    """
    parts = text.split("/")
    if len(parts) > MAX_PATH_PARTS or any(_is_unsafe(part) for part in parts):
        raise InferenceError(
            ErrorCode.REQUEST_PARAMETER_INVALID,
            f"'{shorten(text)}' is no valid path; give one relative to the model's folder, such as '1/model.onnx'",
            path=shorten(text),
        )
    return PurePosixPath(*parts)


def existing_file(folder: Path, name: str, *, field: str) -> Path:
    """Return the regular file that a configuration's `field` names in `folder`; symbolic links may not lead outside.

    Raises: MODEL_CONFIG_INVALID for an unsafe path, MODEL_FILE_MISSING if there is no such file.
    """
    try:
        path = folder.joinpath(relative_path(name)).resolve()
    except (InferenceError, OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise _unsafe(name, field) from error
    if not path.is_relative_to(folder.resolve()):
        raise _unsafe(name, field)
    if not path.is_file():
        raise InferenceError(
            ErrorCode.MODEL_FILE_MISSING, f"there is no file '{name}', which {field} names", field=field, path=name
        )
    return path


def shorten(text: str, limit: int = 100) -> str:
    """Return `text` fit to be shown: at most about `limit` characters, and without half surrogates."""
    shown = text if len(text) <= limit else f"{text[:limit]}…"
    return shown.encode(errors="replace").decode()


def _is_unsafe(part: str) -> bool:
    too_long = len(part.encode(errors="replace")) > MAX_NAME_BYTES
    return too_long or part.startswith(".") or not _PATH_PART.fullmatch(part) or not _is_text(part)


def _is_text(part: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in part)


def _unsafe(name: str, field: str) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_CONFIG_INVALID, f"{field} '{shorten(name)}' does not lie in the model's folder", field=field
    )
