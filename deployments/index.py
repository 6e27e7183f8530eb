"""The repository index: what is wanted with its state, and what else lies in the repository."""

from collections.abc import Iterable

from trygon.models.repository import RepositoryScan
from trygon.models.routing import RoutedVersion
from trygon.models.versions import ModelState, VersionStatus

UNLOADED = "unloaded"
"""Triton's own word for a version that nobody asked for."""


def index_rows(table: Iterable[RoutedVersion], scan: RepositoryScan) -> list[VersionStatus]:
    """Return every version that is known, sorted; models of the repository that nobody asked for are not loaded.

    A model that cannot be described, or that has no version, has the one version 0.
    """
    rows = [row.status for row in table]
    known = {row.model for row in rows}
    for name, entry in scan.entries.items():
        if name not in known:
            rows.extend(_unloaded(name, version, UNLOADED) for version in entry.versions)
    rows.extend(_unloaded(name, 0, fault.message) for name, fault in scan.faults.items() if name not in known)
    return sorted(rows, key=lambda status: (status.model, status.version))


def _unloaded(name: str, version: int, reason: str) -> VersionStatus:
    return VersionStatus(name, version, ModelState.UNAVAILABLE, reason)
