"""The control deployment: one replica that holds the desired state and sees to it that the runners follow it.

It reads the model repository, tells every runner replica what should be loaded, hears what became of it, and lets the
ingress replicas wait for changes. When it dies, Serve starts it anew: runners and ingress go on with what they know,
and what callers had loaded in explicit mode is learned back from the runners.
"""

import asyncio
import contextlib
import itertools
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ray import serve

from trygon.deployments.desired import DesiredState
from trygon.deployments.messages import Desired, ReplicaReport, Routes
from trygon.deployments.runner_link import RunnerLink
from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import check_name
from trygon.models.repository import ModelRepository
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import ModelState, VersionSpec, VersionStatus
from trygon.settings import ModelControlMode

logger = logging.getLogger(__name__)

RECONCILE_S = 1.0
"""Seconds between two rounds in which every replica is told what is desired and asked what it has."""

WATCH_S = 10.0
"""Longest a waiting ingress is kept: short enough that a replica which stops is not held up."""

SETTLE_MARGIN_S = 5.0
"""What a load may take beyond the runner's own limit before control answers without having heard of its end."""


class Control:
    """The holder of the desired state. All of its methods are called through handles, by runners and ingress."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits constructors
        self,
        *,
        repositories: tuple[str, ...],
        mode: ModelControlMode,
        load_models: tuple[str, ...],
        poll_s: float,
        load_timeout_s: float,
        overrides: str,
        runners: tuple[str, ...],
    ) -> None:
        self._term = uuid.uuid4().hex
        self._state = DesiredState()
        self._repository = ModelRepository([Path(root) for root in repositories], gpus=False)
        self._mode = mode
        self._load_timeout_s = load_timeout_s
        self._overrides = Path(overrides)
        self._changes = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        app = serve.get_replica_context().app_name
        self._links = {name: RunnerLink(name, serve.get_deployment_handle(name, app_name=app)) for name in runners}
        self._retries = itertools.count(1)
        if mode is ModelControlMode.EXPLICIT:
            await self._learn()
        await self._read(load_models)
        self._tasks = [asyncio.create_task(self._reconcile())]
        if mode is ModelControlMode.POLL:
            self._tasks.append(asyncio.create_task(self._poll(poll_s)))

    async def desired(self, runner: str) -> Desired:
        """Return what every replica of a runner should have loaded."""
        return Desired(self._term, self._state.revision, self._state.desired(runner), self._links[runner].served)

    async def report(self, report: ReplicaReport) -> None:
        """Take the news of one replica."""
        self._links[report.runner].heard(report.replica)
        self._state.take(report)
        self._notify()

    async def watch(self, term: str, revision: int) -> Routes | None:
        """Return the routes once they are newer than what the caller knows, or None after a while."""
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: term != self._term or self._state.revision > revision, WATCH_S)
            return self._routes()
        return None

    async def routes(self) -> Routes:
        """Return the routes as they are now."""
        return self._routes()

    async def index(self) -> list[VersionStatus]:
        """Return every version that is known: wanted ones with their state, others of the repository as not loaded."""
        scan = await asyncio.to_thread(self._repository.scan)
        rows = [row.status for row in self._state.table()]
        known = {row.model for row in rows}
        for name in sorted(scan.entries.keys() | scan.faults.keys()):
            if name not in known:
                fault = scan.faults.get(name)
                versions = (0,) if fault else scan.entries[name].versions or (0,)
                reason = fault.message if fault else "unloaded"
                rows.extend(VersionStatus(name, number, ModelState.UNAVAILABLE, reason) for number in versions)
        return sorted(rows, key=lambda status: (status.model, status.version))

    async def statistics(self) -> list[ModelStatistics]:
        """Ask all replicas what they counted; return it by model and version."""
        await self._tell()
        merged = self._state.statistics()
        return [merged[key] for key in sorted(merged)]

    async def load(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> Routes:
        """Load or reload a model in all replicas, and return the routes that show it.

        Raises: MODEL_CONTROL_DISABLED, MODEL_NAME_INVALID, MODEL_NOT_FOUND, MODEL_CONFIG_…, MODEL_LOAD_FAILED.
        """
        self._require_explicit(name)
        async with self._lock(name):
            specs = await asyncio.to_thread(self._find, name, config, files)
            self._check_runners(specs)
            self._state.want(name, self._anew(specs))
            await self._tell()
            with contextlib.suppress(TimeoutError):
                await self._until(lambda: self._state.settled(name), self._load_timeout_s + SETTLE_MARGIN_S)
            self._check_loaded(name)
            return self._routes()

    async def unload(self, name: str) -> Routes:
        """Unload all versions of a model from all replicas, and return the routes without it.

        Raises: MODEL_CONTROL_DISABLED, MODEL_NAME_INVALID, MODEL_NOT_FOUND.
        """
        self._require_explicit(name)
        async with self._lock(name):
            if name not in self._state.wanted():
                raise _not_found(name)
            self._state.forget(name)
            await self._tell()
            with contextlib.suppress(TimeoutError):
                await self._until(lambda: self._state.settled(name), self._load_timeout_s)
            await asyncio.to_thread(shutil.rmtree, self._overrides / name, ignore_errors=True)
            return self._routes()

    def _require_explicit(self, name: str) -> None:
        check_name(name)
        if self._mode is not ModelControlMode.EXPLICIT:
            raise InferenceError(
                ErrorCode.MODEL_CONTROL_DISABLED,
                f"explicit model load / unload is not allowed in model control mode '{self._mode}'",
                model=name,
                mode=str(self._mode),
            )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _routes(self) -> Routes:
        return Routes(self._term, self._state.revision, self._state.table(), self._state.missing())

    def _notify(self) -> None:
        changes, self._changes = self._changes, asyncio.Event()
        changes.set()

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until a change makes `condition` true. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._changes.wait()

    async def _reconcile(self) -> None:
        """Round after round, heal what a lost message or a new replica left behind."""
        while True:
            try:
                await self._tell()
            except Exception:
                logger.exception("a round of reconciliation failed")
            await asyncio.sleep(RECONCILE_S)

    async def _tell(self) -> None:
        """Tell every replica of every runner what is desired, take their reports, and wake runners that have none."""
        before = self._state.revision
        await asyncio.gather(*(self._tell_runner(name, link) for name, link in self._links.items()))
        if self._state.revision != before:
            self._notify()

    async def _tell_runner(self, name: str, link: RunnerLink) -> None:
        specs = self._state.desired(name)
        if specs or link.living():
            for report in await link.tell(Desired(self._term, self._state.revision, specs, link.served)):
                self._state.take(report)
            self._state.retain(name, link.living())
        if specs and not link.living():
            link.wake()

    async def _learn(self) -> None:
        """Adopt what the runners have: after a restart, that is what callers had loaded."""
        for link in self._links.values():
            for report in await link.ask():
                self._state.take(report)
        adopted: dict[str, list[VersionSpec]] = {}
        for spec in self._state.reported_specs():
            adopted.setdefault(spec.model, []).append(spec)
        for name, specs in adopted.items():
            self._state.want(name, tuple(specs))

    async def _read(self, load_models: tuple[str, ...]) -> None:
        """Want what the mode asks for at the start: every model of the repository, or the ones that were named."""
        scan = await asyncio.to_thread(self._repository.scan)
        everything = self._mode is not ModelControlMode.EXPLICIT or "*" in load_models
        names = scan.entries.keys() | scan.faults.keys() if everything else set(load_models)
        for name in sorted(names - self._state.wanted()):
            fault = scan.faults.get(name)
            if name in scan.entries:
                self._want(name, scan.entries[name].specs)
            else:
                self._state.blame(name, fault or _not_found(name))
        self._notify()

    def _want(self, name: str, specs: tuple[VersionSpec, ...]) -> None:
        """Want versions, unless this application has no runner deployment for them: then say so."""
        try:
            self._check_runners(specs)
        except InferenceError as fault:
            self._state.blame(name, fault)
        else:
            self._state.want(name, specs)

    def _check_runners(self, specs: tuple[VersionSpec, ...]) -> None:
        for spec in specs:
            if spec.runner not in self._links:
                raise InferenceError(
                    ErrorCode.DEVICE_UNAVAILABLE,
                    f"model '{spec.model}' needs a runner deployment '{spec.runner}': add it to the setting 'runners'",
                    model=spec.model,
                    runner=spec.runner,
                )

    async def _poll(self, poll_s: float) -> None:
        """Follow the repository: what is new is loaded, what changed is loaded anew, what is gone is unloaded."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                scan = await asyncio.to_thread(self._repository.scan)
            except Exception:
                logger.exception("the model repository could not be read")
                continue
            for name, entry in scan.entries.items():
                if entry.specs != self._state.specs(name):
                    self._want(name, entry.specs)
            for name, fault in scan.faults.items():
                self._state.blame(name, fault)
            for name in self._state.wanted() - scan.entries.keys() - scan.faults.keys():
                self._state.forget(name)
            await self._tell()
            self._notify()

    def _find(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> tuple[VersionSpec, ...]:
        """Return the versions of a model as the repository, or the caller's own configuration and files, have them."""
        if config is None and not files:
            return self._repository.entry(name).specs
        return self._repository.override(name, config, files or {}, into=self._overrides).specs

    def _anew(self, specs: tuple[VersionSpec, ...]) -> tuple[VersionSpec, ...]:
        """Give versions that failed before a new generation, so that they are tried again."""
        failed = {
            (row.status.version, row.status.attempted)
            for row in self._state.table()
            if row.status.reason and specs and row.status.model == specs[0].model
        }
        tried = {(version, attempted.partition("+")[0]) for version, attempted in failed}
        return tuple(
            replace(spec, generation=f"{spec.generation}+{next(self._retries)}")
            if (spec.version, spec.generation) in tried
            else spec
            for spec in specs
        )

    def _check_loaded(self, name: str) -> None:
        """Raise why a load failed, if it did; a model that did not serve before is not wanted any more."""
        statuses = [row.status for row in self._state.table() if row.status.model == name]
        generations = {spec.version: spec.generation for spec in self._state.specs(name)}
        if any(status.generation == generations.get(status.version) for status in statuses):
            return
        worst = next((status for status in statuses if status.reason), None)
        reason = worst.reason if worst else "no replica answered in time"
        if not any(status.state is ModelState.READY for status in statuses):
            self._state.refuse(name, reason)
            self._notify()
        raise InferenceError(ErrorCode.MODEL_LOAD_FAILED, f"failed to load '{name}': {reason}", model=name)


def _not_found(name: str) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_NOT_FOUND, f"failed to load '{name}': no such model in the repository", model=name
    )
