"""The model file of a version's folder: which one it is, and that its name stays inside."""

from pathlib import Path

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import MODEL_FILENAMES
from trygon.models.names import relative_path, shorten
from trygon.models.proto.model_config_pb2 import ModelConfig


def model_file(version: Path, config: ModelConfig, backend: str) -> Path:
    """Return the file (for `tensorflow`: the folder) that `backend` loads from the folder `version`, links resolved.

    Where symbolic links may lead is for the repository to say, which knows its roots (models/generation.py).

    Raises: MODEL_CONFIG_INVALID if `default_model_filename` leaves the folder; MODEL_FILE_MISSING, also for a link to
    nothing; MODEL_FILE_INVALID for a folder instead of a file, or the other way round.
    """
    name = config.default_model_filename or MODEL_FILENAMES[backend]
    shown = shorten(name)
    try:
        path = version.joinpath(relative_path(name))
    except InferenceError as error:
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID,
            f"the model file '{shown}' does not lie in the version's folder",
            field="default_model_filename",
        ) from error
    try:
        file = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise InferenceError(
            ErrorCode.MODEL_FILE_MISSING, f"there is no '{shown}' in the version's folder", file=shown
        ) from error
    expected = "folder" if backend == "tensorflow" else "file"
    if not (file.is_dir() if expected == "folder" else file.is_file()):
        raise InferenceError(ErrorCode.MODEL_FILE_INVALID, f"'{shown}' is not a {expected}", file=shown)
    return file
