"""The model file of a version's folder: which one it is, and that it lies inside."""

from pathlib import Path

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import MODEL_FILENAMES
from trygon.models.names import relative_path, shorten
from trygon.models.proto.model_config_pb2 import ModelConfig


def model_file(version: Path, config: ModelConfig, backend: str) -> Path:
    """Return the file (for `tensorflow`: the folder) that `backend` loads from the folder `version`, links resolved.

    Raises: MODEL_CONFIG_INVALID if `default_model_filename` leaves the folder, also through a symbolic link;
    MODEL_FILE_MISSING; MODEL_FILE_INVALID for a folder instead of a file, or the other way round.
    """
    name = config.default_model_filename or MODEL_FILENAMES[backend]
    shown = shorten(name)
    try:
        file = version.joinpath(relative_path(name)).resolve()
    except (InferenceError, OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise _outside(shown) from error
    if not file.is_relative_to(version.resolve()):
        raise _outside(shown)
    if not file.exists():
        raise InferenceError(ErrorCode.MODEL_FILE_MISSING, f"there is no '{shown}' in the version's folder", file=shown)
    expected = "folder" if backend == "tensorflow" else "file"
    if not (file.is_dir() if expected == "folder" else file.is_file()):
        raise InferenceError(ErrorCode.MODEL_FILE_INVALID, f"'{shown}' is not a {expected}", file=shown)
    return file


def _outside(name: str) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_CONFIG_INVALID,
        f"the model file '{name}' does not lie in the version's folder",
        field="default_model_filename",
    )
