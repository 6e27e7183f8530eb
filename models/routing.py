"""Which version of a model answers a request, and which runner has it: an immutable table, replaced on each change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import shorten
from trygon.models.versions import ModelState, VersionStatus

MAX_VERSION: Final = 2**63 - 1
"""Highest version: versions are int64 in Triton's protocol."""

_NOT_READY: Final[Mapping[ModelState, tuple[ErrorCode, str]]] = {
    ModelState.LOADING: (ErrorCode.MODEL_LOADING, "is being loaded"),
    ModelState.UNAVAILABLE: (ErrorCode.MODEL_UNAVAILABLE, "is unavailable"),
    ModelState.UNLOADING: (ErrorCode.MODEL_NOT_READY, "is being unloaded"),
    ModelState.UNKNOWN: (ErrorCode.MODEL_NOT_READY, "is not ready"),
}
"""States in which a version does not answer, the nearest to answering first."""


@dataclass(frozen=True, slots=True)
class RoutedVersion:
    """A model version and the runner deployment that has it, such as "onnx-cpu"."""

    status: VersionStatus
    runner: str


class RoutingTable:
    """All known versions of all models. A lookup of a version that is ready is two dictionary look-ups."""

    def __init__(self, versions: Iterable[RoutedVersion] = ()) -> None:
        known: dict[str, dict[int, RoutedVersion]] = {}
        for routed in versions:
            of_model = known.setdefault(routed.status.model, {})
            present = of_model.get(routed.status.version)
            # While a version moves from one runner to another both tell of it: the one that answers counts.
            if present is None or present.status.state is not ModelState.READY:
                of_model[routed.status.version] = routed
        self._known = {name: dict(sorted(of_model.items())) for name, of_model in sorted(known.items())}
        self._ready = {
            name: {
                str(version): routed for version, routed in of_model.items() if routed.status.state is ModelState.READY
            }
            for name, of_model in self._known.items()
        }
        for ready in self._ready.values():
            if ready:
                ready[""] = next(reversed(ready.values()))

    def resolve(self, name: str, version: str = "") -> RoutedVersion:
        """Return the version that answers: the given one, or the highest that is ready when `version` is empty.

        Raises: MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, MODEL_VERSION_INVALID, MODEL_LOADING, MODEL_UNAVAILABLE,
        MODEL_NOT_READY.
        """
        ready = self._ready.get(name)
        if ready is None:
            _parse_version(name, version)
            raise InferenceError(
                ErrorCode.MODEL_NOT_FOUND, f"Request for unknown model: '{name}' is not found", model=name
            )
        return ready.get(version) or self._resolve_slowly(name, version)

    def find(self, name: str, version: str = "") -> tuple[RoutedVersion, ...]:
        """Return what is known of one version, or of all versions when `version` is empty, ready or not.

        Raises: MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, MODEL_VERSION_INVALID.
        """
        number = _parse_version(name, version)
        of_model = self._known.get(name)
        if of_model is None:
            raise InferenceError(
                ErrorCode.MODEL_NOT_FOUND, f"Request for unknown model: '{name}' is not found", model=name
            )
        if number is None:
            return tuple(of_model.values())
        if number not in of_model:
            raise InferenceError(
                ErrorCode.MODEL_VERSION_NOT_FOUND,
                f"Request for unknown model: '{name}' version {number} is not found",
                model=name,
                version=str(number),
            )
        return (of_model[number],)

    def ready_versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model that are ready, ascending; none for an unknown model."""
        return tuple(version for version in self._ready.get(name, ()) if version)

    def statuses(self) -> tuple[VersionStatus, ...]:
        """Return all that is known, sorted by name and version."""
        return tuple(routed.status for of_model in self._known.values() for routed in of_model.values())

    def _resolve_slowly(self, name: str, version: str) -> RoutedVersion:
        """Find a version written in an unusual way, such as "01", or say why there is no answer."""
        candidates = self.find(name, version)
        for routed in reversed(candidates):
            if routed.status.state is ModelState.READY:
                return routed
        raise _not_ready(name, candidates)


def _parse_version(name: str, version: str) -> int | None:
    """Return a version as a number, None for an empty one.

    Raises: MODEL_VERSION_INVALID.
    """
    if not version:
        return None
    # Longer ones are not parsed: the time that takes grows faster than their length.
    number = int(version) if len(version) <= len(str(MAX_VERSION)) and version.isascii() and version.isdigit() else 0
    if not 0 < number <= MAX_VERSION:
        raise InferenceError(
            ErrorCode.MODEL_VERSION_INVALID,
            f"failed to get model version from specified version string '{shorten(version)}', version should be an"
            " integral value > 0",
            model=name,
            version=shorten(version),
        )
    return number


def _not_ready(name: str, candidates: Iterable[RoutedVersion]) -> InferenceError:
    """Say of the version that is nearest to being ready why it is not."""
    by_state = {routed.status.state: routed.status for routed in candidates}
    status = next(by_state[state] for state in _NOT_READY if state in by_state)
    code, what = _NOT_READY[status.state]
    # A model that could not even be described has the version 0.
    version = f" version {status.version}" if status.version else ""
    reason = f": {status.reason}" if status.reason else ""
    return InferenceError(
        code,
        f"Request for model '{name}'{version}, which {what}{reason}",
        model=name,
        version=str(status.version or ""),
        reason=status.reason,
    )
