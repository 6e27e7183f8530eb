"""What replicas that are gone have counted: kept for as long as their models are wanted."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from trygon.models.statistics import ModelStatistics

RECENT = 64
"""Replicas whose counts are kept apart: one that was only unreachable may come back with all that it had counted."""


@dataclass(slots=True)
class Counted:
    """Statistics of replicas that do not live any more."""

    _recent: dict[str, tuple[ModelStatistics, ...]] = field(default_factory=dict)
    _older: dict[tuple[str, int], ModelStatistics] = field(default_factory=dict)

    def retire(self, replica: str, statistics: Iterable[ModelStatistics]) -> None:
        """Keep what a replica had counted when it went."""
        self._recent[replica] = tuple(replace(item, schedulers=()) for item in statistics)
        if len(self._recent) > RECENT:
            merge(self._older, self._recent.pop(next(iter(self._recent))))

    def revive(self, replica: str) -> None:
        """Let go of a replica's counts: it lives, and tells them itself."""
        self._recent.pop(replica, None)

    def forget(self, model: str) -> None:
        """Let go of all that was counted for a model."""
        self._older = {key: item for key, item in self._older.items() if item.model != model}
        self._recent = {
            replica: tuple(item for item in statistics if item.model != model)
            for replica, statistics in self._recent.items()
        }

    def total(self) -> dict[tuple[str, int], ModelStatistics]:
        """Return the sum by model and version; the caller may go on adding to it."""
        found: dict[tuple[str, int], ModelStatistics] = {}
        merge(found, self._older.values())
        for statistics in self._recent.values():
            merge(found, statistics)
        return found


def merge(into: dict[tuple[str, int], ModelStatistics], statistics: Iterable[ModelStatistics]) -> None:
    """Add statistics to those of the same model and version; what is added is left as it is."""
    for item in statistics:
        key = (item.model, item.version)
        into.setdefault(key, ModelStatistics(*key)).merge(item)
