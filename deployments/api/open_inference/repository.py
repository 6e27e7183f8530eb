"""The model repository extension: what a load request carries, and what the index tells, over HTTP and gRPC."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import relative_path
from trygon.models.versions import VersionStatus

FILE_PREFIX: Final = "file:"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What is loaded instead of what lies in the repository: a configuration as JSON, and files by relative path."""

    config: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def load_options(parameters: Mapping[str, Any]) -> LoadOptions:
    """Return the parameters of a load request; files are base64 text (HTTP) or bytes (gRPC).

    Raises: REQUEST_PARAMETER_INVALID for anything else than `config` and `file:<path>`, for files without a
    configuration, for paths that leave the model's folder, and for text that is not base64.
    """
    files = {}
    for name, value in parameters.items():
        if name.startswith(FILE_PREFIX):
            path = str(relative_path(name.removeprefix(FILE_PREFIX)))
            files[path] = value if isinstance(value, bytes) else _decoded(name, value)
        elif name != "config":
            raise _invalid(name, "is unknown: a load request takes 'config' and 'file:<path>'")
    config = parameters.get("config")
    if "config" in parameters and type(config) is not str:
        raise _invalid("config", "must be a string that holds the model's configuration as JSON")
    if files and config is None:
        raise _invalid(next(iter(parameters)), "needs the parameter 'config' beside it")
    return LoadOptions(config, files)


def unload_dependents(parameters: Mapping[str, Any]) -> bool:
    """Return whether an unload request asks for the models that depend on this one to go as well.

    Raises: REQUEST_PARAMETER_INVALID.
    """
    for name, value in parameters.items():
        if name != "unload_dependents":
            raise _invalid(name, "is unknown: an unload request takes 'unload_dependents'")
        if type(value) is not bool:
            raise _invalid(name, "must be true or false")
    return bool(parameters.get("unload_dependents"))


def index_entry(status: VersionStatus) -> dict[str, str]:
    """Return one line of the repository index."""
    return {
        "name": status.model,
        "version": str(status.version),
        "state": str(status.state),
        "reason": status.reason,
    }


def _decoded(name: str, value: Any) -> bytes:
    if type(value) is not str:
        raise _invalid(name, "must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(name, "is not valid base64") from None


def _invalid(name: str, reason: str) -> InferenceError:
    return InferenceError(ErrorCode.REQUEST_PARAMETER_INVALID, f"the parameter '{name}' {reason}", parameter=name)
