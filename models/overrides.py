"""Models that a caller sends along with a load: their files, written as a complete model folder or not at all."""

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import CONFIG_FILENAME, config_to_text
from trygon.models.constraints import check_config
from trygon.models.names import check_name, relative_path, shorten
from trygon.models.policy import parse_version_folder
from trygon.models.proto.model_config_pb2 import ModelConfig


def materialise(name: str, config: ModelConfig, files: Mapping[str, bytes], into: Path) -> Path:
    """Write a model folder and return its path, `into`/`name`/DIGEST/`name`; equal content has an equal path.

    Keys of `files` are paths in the model's folder, such as "1/model.onnx", with or without Triton's prefix "file:".
    The folder appears complete or not at all, and earlier ones of the same name stay: versions that still serve from
    them need them. Remove `into`/`name` once the model is unloaded.

    Raises: MODEL_NAME_INVALID, MODEL_CONFIG_…, REQUEST_PARAMETER_INVALID for paths that are unsafe, contradict each
    other or hold no version, STORAGE_FULL, STORAGE_UNAVAILABLE.
    """
    check_name(name)
    check_config(config, folder=name)
    contents = _checked(files)
    contents[PurePosixPath(CONFIG_FILENAME)] = config_to_text(config).encode()
    parent = into / name
    target = parent / _digest(contents)
    if target.is_dir():
        return target / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=parent, ignore_cleanup_errors=True) as draft:
            _write(Path(draft) / "model" / name, contents)
            _publish(Path(draft) / "model", target)
    except OSError as error:
        code = ErrorCode.STORAGE_FULL if error.errno == errno.ENOSPC else ErrorCode.STORAGE_UNAVAILABLE
        raise InferenceError(code, f"model '{name}' could not be written: {error.strerror}", model=name) from error
    return target / name


def _checked(files: Mapping[str, bytes]) -> dict[PurePosixPath, bytes]:
    contents: dict[PurePosixPath, bytes] = {}
    for text, content in files.items():
        path = relative_path(text.removeprefix("file:"))
        if path in contents or path == PurePosixPath(CONFIG_FILENAME):
            raise _invalid(f"file '{shorten(text)}' is given twice")
        contents[path] = content
    folders = {parent for path in contents for parent in path.parents}
    if clash := sorted(folders & contents.keys()):
        raise _invalid(f"'{shorten(str(clash[0]))}' cannot be a file and a folder")
    if not any(parse_version_folder(path.parts[0]) for path in contents if len(path.parts) > 1):
        raise _invalid("no file lies in a version folder, such as 'file:1/model.onnx'")
    return contents


def _digest(contents: Mapping[PurePosixPath, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, content in sorted(contents.items()):
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _write(folder: Path, contents: Mapping[PurePosixPath, bytes]) -> None:
    for path, content in contents.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _publish(draft: Path, target: Path) -> None:
    """Move a draft to its place, unless another load has just put the same content there."""
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        shutil.rmtree(draft)


def _invalid(reason: str) -> InferenceError:
    return InferenceError(ErrorCode.REQUEST_PARAMETER_INVALID, f"file override: {reason}")
