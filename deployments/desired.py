"""The desired state: which versions should be loaded, and, from the replicas' reports, what became of them.

Pure bookkeeping. A model that changes keeps its old versions until the new ones have settled, so that a broken new
version, or a slow one, takes nothing away.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from trygon.deployments.messages import ReplicaReport
from trygon.errors import InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import ModelState, VersionSpec, VersionStatus

WAITING = "waiting for a replica"


@dataclass(slots=True)
class WantedModel:
    """One model that should be loaded: its versions, those that leave once these serve, or why it cannot be loaded."""

    specs: tuple[VersionSpec, ...] = ()
    leaving: tuple[VersionSpec, ...] = ()
    fault: InferenceError | None = None


@dataclass(slots=True)
class DesiredState:
    """What should be loaded in all replicas of all runners, and what is."""

    revision: int = 0
    """Grows whenever anything that a runner or an ingress should know has changed."""

    _wanted: dict[str, WantedModel] = field(default_factory=dict)
    _refused: dict[str, tuple[VersionStatus, ...]] = field(default_factory=dict)
    _reports: dict[str, ReplicaReport] = field(default_factory=dict)
    _retired: dict[tuple[str, int], ModelStatistics] = field(default_factory=dict)

    def want(self, name: str, specs: tuple[VersionSpec, ...]) -> None:
        """Ask for these versions of a model; the ones it has now stay until these have settled."""
        current = self._wanted.get(name, WantedModel())
        kept = {(spec.version, spec.runner) for spec in specs}
        leaving = tuple(spec for spec in (*current.specs, *current.leaving) if (spec.version, spec.runner) not in kept)
        self._wanted[name] = WantedModel(specs, leaving)
        self._refused.pop(name, None)
        self._touch()

    def blame(self, name: str, fault: InferenceError) -> None:
        """Record that a wanted model cannot even be described; versions that serve go on serving."""
        current = self._wanted.get(name, WantedModel())
        self._wanted[name] = replace(current, fault=fault)
        self._touch()

    def forget(self, name: str) -> None:
        """Ask for no version of a model."""
        self._refused.pop(name, None)
        if self._wanted.pop(name, None):
            self._retired = {key: item for key, item in self._retired.items() if key[0] != name}
            self._touch()

    def refuse(self, name: str, reason: str) -> None:
        """Remember why a model that was asked for is not wanted any more: its load failed."""
        versions = [spec.version for spec in self.specs(name)] or [0]
        self.forget(name)
        self._refused[name] = tuple(_unavailable(name, version, reason) for version in versions)
        self._touch()

    def wanted(self) -> frozenset[str]:
        """Return the names of the models that should be loaded."""
        return frozenset(self._wanted)

    def specs(self, name: str) -> tuple[VersionSpec, ...]:
        """Return the versions that a model should have."""
        return self._wanted.get(name, WantedModel()).specs

    def desired(self, runner: str) -> tuple[VersionSpec, ...]:
        """Return what every replica of a runner should have loaded."""
        return tuple(
            spec for model in self._wanted.values() for spec in (*model.specs, *model.leaving) if spec.runner == runner
        )

    def missing(self) -> dict[str, str]:
        """Return the models that should be loaded and of which a version cannot serve, with the reason."""
        found: dict[str, str] = {}
        for name, model in self._wanted.items():
            if model.fault and not model.specs:
                found[name] = model.fault.message
            for status in map(self._status, model.specs):
                if status.state is not ModelState.READY:
                    found[name] = status.reason or f"version {status.version} is {status.state}"
        return found

    def runners(self) -> frozenset[str]:
        """Return the runners that should have something loaded."""
        return frozenset(spec.runner for model in self._wanted.values() for spec in (*model.specs, *model.leaving))

    def replicas(self, runner: str) -> frozenset[str]:
        """Return the replicas of a runner that have reported and live."""
        return frozenset(report.replica for report in self._reports.values() if report.runner == runner)

    def take(self, report: ReplicaReport) -> None:
        """Take a replica's report, and let go of the versions that were only waiting for it."""
        previous = self._reports.get(report.replica)
        self._reports[report.replica] = report
        if previous is None or previous.statuses != report.statuses:
            self._touch()
        for model in self._wanted.values():
            if model.leaving and self._settled(model.specs) and any(self._serves(spec) for spec in model.specs):
                model.leaving = ()
                self._touch()

    def retain(self, runner: str, replicas: frozenset[str]) -> None:
        """Drop the reports of a runner's replicas that do not live any more, but keep what they counted."""
        gone = [
            report for report in self._reports.values() if report.runner == runner and report.replica not in replicas
        ]
        for report in gone:
            del self._reports[report.replica]
            for statistics in report.statistics:
                self._retire(statistics)
            self._touch()

    def settled(self, name: str) -> bool:
        """Whether every version of a model has been tried by a replica, or nothing is left of an unwanted model."""
        model = self._wanted.get(name)
        if model is None:
            return not any(status.model == name for report in self._reports.values() for status in report.statuses)
        return self._settled(model.specs)

    def table(self) -> tuple[RoutedVersion, ...]:
        """Return every known version with its state and its runner."""
        rows: list[RoutedVersion] = []
        for name, model in self._wanted.items():
            specs = {spec.version: spec for spec in (*model.specs, *model.leaving)}
            specs.update({spec.version: spec for spec in model.specs if self._serves(spec)})
            rows.extend(RoutedVersion(self._status(spec), spec.runner) for spec in specs.values())
            if model.fault and not specs:
                rows.append(RoutedVersion(_unavailable(name, 0, model.fault.message), ""))
        listed = {(row.status.model, row.status.version) for row in rows}
        rows.extend(
            RoutedVersion(status, report.runner)
            for report in self._reports.values()
            for status in report.statuses
            if (status.model, status.version) not in listed
        )
        rows.extend(RoutedVersion(status, "") for statuses in self._refused.values() for status in statuses)
        return tuple(rows)

    def reported_specs(self) -> tuple[VersionSpec, ...]:
        """Return what the replicas have been told to load, each once."""
        return tuple(dict.fromkeys(spec for report in self._reports.values() for spec in report.specs))

    def statistics(self) -> dict[tuple[str, int], ModelStatistics]:
        """Return what all replicas counted, those that are gone included, by model and version."""
        merged: dict[tuple[str, int], ModelStatistics] = {}
        counted = (*self._retired.values(), *(item for report in self._reports.values() for item in report.statistics))
        for item in counted:
            merged.setdefault((item.model, item.version), ModelStatistics(item.model, item.version)).merge(item)
        return merged

    def _settled(self, specs: Iterable[VersionSpec]) -> bool:
        return all(self._tried(spec) for spec in specs)

    def _tried(self, spec: VersionSpec) -> bool:
        """Whether every live replica (and at least one) has ended its try to load this generation."""
        found = [self._find(report, spec) for report in self._reports.values() if report.runner == spec.runner]
        return bool(found) and all(status is not None and status.attempted == spec.generation for status in found)

    def _serves(self, spec: VersionSpec) -> bool:
        return self._status(spec).state is ModelState.READY

    def _status(self, spec: VersionSpec) -> VersionStatus:
        """Return the best that any replica says of a version: it can serve when one replica can."""
        found = [self._find(report, spec) for report in self._reports.values() if report.runner == spec.runner]
        said = [status for status in found if status is not None]
        order = (ModelState.READY, ModelState.LOADING, ModelState.UNAVAILABLE, ModelState.UNLOADING)
        fault = self._wanted[spec.model].fault if spec.model in self._wanted else None
        for state in order:
            same = [status for status in said if status.state is state]
            if same:
                best = max(same, key=lambda status: status.generation == spec.generation)
                return replace(best, reason=best.reason or (fault.message if fault else ""))
        return VersionStatus(spec.model, spec.version, ModelState.LOADING, reason=WAITING)

    @staticmethod
    def _find(report: ReplicaReport, spec: VersionSpec) -> VersionStatus | None:
        return next(
            (item for item in report.statuses if item.model == spec.model and item.version == spec.version), None
        )

    def _retire(self, statistics: ModelStatistics) -> None:
        key = (statistics.model, statistics.version)
        if statistics.model in self._wanted:
            self._retired.setdefault(key, ModelStatistics(*key)).merge(statistics)

    def _touch(self) -> None:
        self.revision += 1


def _unavailable(name: str, version: int, reason: str) -> VersionStatus:
    return VersionStatus(name, version, ModelState.UNAVAILABLE, reason=reason)
