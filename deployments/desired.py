"""The desired state: which versions should be loaded, and, from the replicas' reports, what became of them.

Pure bookkeeping. A model that changes keeps its old versions until the new ones have settled, so that a broken new
version, or a slow one, takes nothing away.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from trygon.deployments.counted import Counted, merge
from trygon.deployments.messages import ReplicaReport
from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import ModelState, VersionSpec, VersionStatus

WAITING = "waiting for a replica"
STARTING = "waiting for its replica to take requests"


@dataclass(frozen=True, slots=True)
class WantedModel:
    """One model that should be loaded: its versions, those that leave once these serve, or why it cannot be loaded.

    `absent` are versions that its policy names and its folder lacks; `before` is what was wanted until these versions
    were, as long as it is not clear what becomes of them.
    """

    specs: tuple[VersionSpec, ...] = ()
    leaving: tuple[VersionSpec, ...] = ()
    absent: tuple[int, ...] = ()
    fault: InferenceError | None = None
    before: "WantedModel | None" = None


@dataclass(slots=True)
class DesiredState:
    """What should be loaded in all replicas of all runners, and what is."""

    revision: int = 0
    """Grows whenever anything that a runner or an ingress should know has changed."""

    _wanted: dict[str, WantedModel] = field(default_factory=dict)
    _refused: dict[str, tuple[VersionStatus, ...]] = field(default_factory=dict)
    _reports: dict[str, ReplicaReport] = field(default_factory=dict)
    _counted: Counted = field(default_factory=Counted)

    def want(self, name: str, specs: tuple[VersionSpec, ...], absent: tuple[int, ...] = ()) -> None:
        """Ask for these versions of a model; the ones it has now stay until these have settled."""
        current = self._wanted.get(name, WantedModel())
        kept = {(spec.version, spec.runner) for spec in specs}
        leaving = tuple(spec for spec in (*current.specs, *current.leaving) if (spec.version, spec.runner) not in kept)
        before = replace(current, before=None) if name in self._wanted else None
        self._wanted[name] = WantedModel(specs, leaving, absent, before=before)
        self._refused.pop(name, None)
        self._touch()

    def blame(self, name: str, fault: InferenceError) -> None:
        """Record that a wanted model cannot even be described; versions that serve go on serving."""
        current = self._wanted.get(name, WantedModel())
        if current.fault is None or (current.fault.code, current.fault.message) != (fault.code, fault.message):
            self._wanted[name] = replace(current, fault=fault)
            self._touch()

    def forget(self, name: str) -> None:
        """Ask for no version of a model."""
        wanted, refused = self._wanted.pop(name, None), self._refused.pop(name, None)
        if wanted or refused:
            self._counted.forget(name)
            self._touch()

    def give_up(self, name: str, reason: str) -> None:
        """Take back a wish that did not come true, as far as something is left to go back to.

        Versions that still serve in an earlier generation are wanted in that one again, with the reason beside it. A
        model that was not wanted before and of which no version serves is not wanted any more. All else stays wanted.
        """
        model = self._wanted[name]
        before = model.before
        earlier = {(spec.version, spec.runner) for spec in before.specs if self._serves(spec)} if before else set()
        if before and all((spec.version, spec.runner) in earlier for spec in model.specs):
            self._wanted[name] = replace(before, fault=InferenceError(ErrorCode.MODEL_LOAD_FAILED, reason, model=name))
        elif before is None and not any(self._serves(spec) for spec in model.specs):
            self.forget(name)
            self._refused[name] = tuple(_unavailable(name, spec.version, reason) for spec in model.specs)
        self._touch()

    def wanted(self) -> frozenset[str]:
        """Return the names of the models that should be loaded."""
        return frozenset(self._wanted)

    def specs(self, name: str) -> tuple[VersionSpec, ...]:
        """Return the versions that a model should have."""
        return self._wanted.get(name, WantedModel()).specs

    def follows(self, name: str, specs: tuple[VersionSpec, ...], absent: tuple[int, ...]) -> bool:
        """Whether a model is wanted just like this, and nothing is known to be wrong with it."""
        model = self._wanted.get(name, WantedModel())
        return (model.specs, model.absent, model.fault) == (specs, absent, None)

    def folders(self, name: str) -> frozenset[str]:
        """Return the model folders that replicas of a model load from, now or when they start."""
        model = self._wanted.get(name, WantedModel())
        return frozenset(spec.model_path for spec in (*model.specs, *model.leaving))

    def renewed(self, specs: tuple[VersionSpec, ...], mark: str) -> tuple[VersionSpec, ...]:
        """Return versions to be wanted; those that some replica could not load get a generation that is to be tried."""
        failed = {
            (status.model, status.version, status.attempted.partition("+")[0])
            for report in self._reports.values()
            for status in report.statuses
            if status.reason
        }
        return tuple(
            replace(spec, generation=f"{spec.generation}+{mark}")
            if (spec.model, spec.version, spec.generation) in failed
            else spec
            for spec in specs
        )

    def desired(self, runner: str) -> tuple[VersionSpec, ...]:
        """Return what every replica of a runner should have loaded."""
        return tuple(
            spec for model in self._wanted.values() for spec in (*model.specs, *model.leaving) if spec.runner == runner
        )

    def served(self, runner: str) -> bool:
        """Whether a replica of a runner takes calls."""
        return any(report.serving for report in self._reports.values() if report.runner == runner)

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

    def take(self, report: ReplicaReport) -> None:
        """Take a replica's report unless a newer one is known, and let go of versions that only waited for it."""
        previous = self._reports.get(report.replica)
        if previous and report.sequence < previous.sequence:
            return
        self._counted.revive(report.replica)
        self._reports[report.replica] = report
        if previous is None or (previous.statuses, previous.serving) != (report.statuses, report.serving):
            self._touch()
        for name, model in self._wanted.items():
            if model.leaving and self._settled(model.specs) and any(self._serves(spec) for spec in model.specs):
                self._wanted[name] = replace(model, leaving=())
                self._touch()

    def retain(self, runner: str, replicas: frozenset[str]) -> None:
        """Drop the reports of a runner's replicas that do not live any more, but keep what they counted."""
        gone = [
            report for report in self._reports.values() if report.runner == runner and report.replica not in replicas
        ]
        for report in gone:
            del self._reports[report.replica]
            self._counted.retire(report.replica, (item for item in report.statistics if item.model in self._wanted))
            self._touch()

    def settled(self, name: str) -> bool:
        """Whether every version of a model has been tried by a replica, or nothing is left of an unwanted model."""
        model = self._wanted.get(name)
        if model is None:
            return not any(status.model == name for report in self._reports.values() for status in report.statuses)
        return self._settled(model.specs)

    def shortfall(self, name: str) -> str:
        """Return why some version of a model does not serve in the generation that is wanted; "" if all do."""
        for spec in self.specs(name):
            status = self._status(spec)
            if status.generation != spec.generation:
                return status.reason or "no replica answered in time"
        return ""

    def table(self) -> tuple[RoutedVersion, ...]:
        """Return every known version once, with its state and its runner."""
        rows: dict[tuple[str, int], RoutedVersion] = {}
        for name, model in self._wanted.items():
            specs = {spec.version: spec for spec in (*model.specs, *model.leaving)}
            specs.update({spec.version: spec for spec in model.specs if self._serves(spec)})
            rows.update(
                {(name, version): RoutedVersion(self._status(spec), spec.runner) for version, spec in specs.items()}
            )
            for version in model.absent:
                status = _unavailable(
                    name, version, f"the version policy asks for it, but there is no folder '{version}'"
                )
                rows.setdefault((name, version), RoutedVersion(status, ""))
            if model.fault and not specs:
                rows[name, 0] = RoutedVersion(_unavailable(name, 0, model.fault.message), "")
        for status in (status for statuses in self._refused.values() for status in statuses):
            rows[status.model, status.version] = RoutedVersion(status, "")
        for report in self._reports.values():
            for status in report.statuses:
                # A replica that has not yet heard that a version should go still calls it ready: nobody is to be sent.
                row = RoutedVersion(replace(status, state=ModelState.UNLOADING), report.runner)
                rows.setdefault((status.model, status.version), row)
        return tuple(rows.values())

    def adopt(self) -> None:
        """Want what the replicas have been told to load: of each version the generation that serves, or any."""
        found: dict[str, dict[tuple[int, str], VersionSpec]] = {}
        for report in self._reports.values():
            serving = {(status.model, status.version, status.generation) for status in report.statuses}
            for spec in report.specs:
                of_model = found.setdefault(spec.model, {})
                if (spec.model, spec.version, spec.generation) in serving:
                    of_model[spec.version, spec.runner] = spec
                else:
                    of_model.setdefault((spec.version, spec.runner), spec)
        for name, specs in found.items():
            self.want(name, tuple(specs.values()))

    def statistics(self) -> dict[tuple[str, int], ModelStatistics]:
        """Return what all replicas counted, those that are gone included, by model and version."""
        merged = self._counted.total()
        for report in self._reports.values():
            merge(merged, report.statistics)
        return merged

    def _settled(self, specs: Iterable[VersionSpec]) -> bool:
        return all(self._tried(spec) for spec in specs)

    def _tried(self, spec: VersionSpec) -> bool:
        """Whether every replica that takes calls (and at least one) has ended its try to load this generation."""
        found = [
            _find(report, spec) for report in self._reports.values() if report.runner == spec.runner and report.serving
        ]
        return bool(found) and all(
            status is not None and spec.generation in {status.attempted, status.generation} for status in found
        )

    def _serves(self, spec: VersionSpec) -> bool:
        return self._status(spec).state is ModelState.READY

    def _status(self, spec: VersionSpec) -> VersionStatus:
        """Return the best that any replica says of a version: it can serve when one replica can."""
        found = [_find(report, spec) for report in self._reports.values() if report.runner == spec.runner]
        said = [status for status in found if status is not None]
        order = (ModelState.READY, ModelState.LOADING, ModelState.UNAVAILABLE, ModelState.UNLOADING)
        fault = self._wanted[spec.model].fault if spec.model in self._wanted else None
        for state in order:
            same = [status for status in said if status.state is state]
            if same:
                best = max(same, key=lambda status: status.generation == spec.generation)
                return replace(best, reason=best.reason or (fault.message if fault else ""))
        return VersionStatus(spec.model, spec.version, ModelState.LOADING, reason=WAITING)

    def _touch(self) -> None:
        self.revision += 1


def _find(report: ReplicaReport, spec: VersionSpec) -> VersionStatus | None:
    """Return what a replica says of a version; one that takes no calls yet has nothing that is ready."""
    for status in report.statuses:
        if (status.model, status.version) == (spec.model, spec.version):
            if status.state is ModelState.READY and not report.serving:
                return VersionStatus(spec.model, spec.version, ModelState.LOADING, STARTING)
            return status
    return None


def _unavailable(name: str, version: int, reason: str) -> VersionStatus:
    return VersionStatus(name, version, ModelState.UNAVAILABLE, reason=reason)
