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
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trygon.deployments.calls import Connect, connect, detach
from trygon.deployments.changes import Changes
from trygon.deployments.desired import DesiredState
from trygon.deployments.fleet import Fleet
from trygon.deployments.index import index_rows
from trygon.deployments.messages import Desired, ReplicaReport, Routes
from trygon.deployments.turns import Turns
from trygon.errors import ErrorCode, InferenceError
from trygon.models.entry import ModelEntry
from trygon.models.names import check_name
from trygon.models.repository import ModelRepository, RepositoryScan
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import VersionStatus
from trygon.settings import ModelControlMode

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often control does what it does by itself, and how long it lets others wait.

    `round_s` lies between two rounds in which every replica is told what is desired and asked what it has, `starting_s`
    between two while some replica takes no calls yet. A waiting ingress is kept for `watch_s`: short enough that a
    replica which stops is not held up. A load may take `settle_margin_s` beyond the runner's own limit before control
    answers without having heard of its end.
    """

    round_s: float = 1.0
    starting_s: float = 0.2
    watch_s: float = 10.0
    settle_margin_s: float = 5.0


PACE = Pace()


class Control:
    """The holder of the desired state. All of its methods are called through handles, by runners and ingress."""

    async def __init__(  # type: ignore[misc]  # noqa: PLR0913 - Ray Serve awaits constructors; one argument per setting
        self,
        *,
        repositories: tuple[str, ...],
        mode: ModelControlMode,
        load_models: tuple[str, ...],
        poll_s: float,
        load_timeout_s: float,
        overrides: str,
        runners: tuple[str, ...],
        connect: Connect = connect,
        pace: Pace = PACE,
    ) -> None:
        self._term = uuid.uuid4().hex
        self._state = DesiredState()
        self._repository = ModelRepository([Path(root) for root in repositories], gpus=False)
        self._mode = mode
        self._load_timeout_s = load_timeout_s
        self._overrides = Path(overrides)
        self._pace = pace
        self._changes = Changes()
        self._turns = Turns()
        self._fleet = Fleet(runners, connect, self._state, self._term)
        self._retries = itertools.count(1)
        self._hurry = asyncio.Event()
        if mode is ModelControlMode.EXPLICIT:
            await self._fleet.learn()
            self._state.adopt()
        await self._read(load_models)
        self._tasks: set[asyncio.Task[Any]] = {asyncio.create_task(self._reconcile())}
        if mode is ModelControlMode.POLL:
            self._tasks.add(asyncio.create_task(self._poll(poll_s)))

    async def desired(self, runner: str) -> Desired:
        """Return what every replica of a runner should have loaded."""
        return self._fleet.desired(runner)

    async def report(self, report: ReplicaReport) -> None:
        """Take the news of one replica."""
        self._fleet.hear(report)
        self._publish()
        if self._fleet.starting:
            self._hurry.set()

    async def watch(self, term: str, revision: int) -> Routes | None:
        """Return the routes once they are newer than what the caller knows, or None after a while."""
        newer = await self._changes.until(
            lambda: term != self._term or self._state.revision > revision, timeout_s=self._pace.watch_s
        )
        return self._routes() if newer else None

    async def routes(self) -> Routes:
        """Return the routes as they are now."""
        return self._routes()

    async def index(self) -> list[VersionStatus]:
        """Return every version that is known: wanted ones with their state, others of the repository as not loaded."""
        try:
            scan = await asyncio.to_thread(self._repository.scan)
        except InferenceError as error:  # what is wanted is known all the same
            logger.warning("the index lacks what is not loaded: %s", error)
            scan = RepositoryScan()
        return index_rows(self._state.table(), scan)

    async def statistics(self) -> list[ModelStatistics]:
        """Ask all replicas what they counted; return it by model and version."""
        await self._tell()
        merged = self._state.statistics()
        return [merged[key] for key in sorted(merged)]

    async def load(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> Routes:
        """Load or reload a model in all replicas, and return the routes that show it.

        Raises: MODEL_CONTROL_DISABLED, MODEL_NAME_INVALID, MODEL_NOT_FOUND, MODEL_CONFIG_…, DEVICE_UNAVAILABLE,
        MODEL_LOAD_FAILED, MODEL_LOAD_TIMEOUT.
        """
        self._require_explicit(name)
        return await self._finish(self._load(name, config, files))

    async def unload(self, name: str) -> Routes:
        """Unload all versions of a model from all replicas, and return the routes without it.

        Raises: MODEL_CONTROL_DISABLED, MODEL_NAME_INVALID, MODEL_NOT_FOUND, MODEL_LOAD_TIMEOUT.
        """
        self._require_explicit(name)
        return await self._finish(self._unload(name))

    async def _load(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> Routes:
        async with self._turn(name, "load"):
            try:
                entry = await asyncio.to_thread(self._find, name, config, files)
                self._fleet.require(entry.specs)
                specs = self._state.renewed(entry.specs, f"{self._term}.{next(self._retries)}")
                self._state.want(name, specs, entry.absent)
                await self._tell()
                settled = await self._changes.until(
                    lambda: self._state.settled(name), timeout_s=self._load_timeout_s + self._pace.settle_margin_s
                )
                try:
                    self._check_loaded(name, settled=settled)
                finally:
                    await self._tell()  # versions that stayed only until these had settled, or did not load, may go
            finally:
                await asyncio.to_thread(self._prune, name)
            return self._routes()

    async def _unload(self, name: str) -> Routes:
        async with self._turn(name, "unload"):
            if name not in self._state.wanted():
                raise InferenceError(
                    ErrorCode.MODEL_NOT_FOUND, f"failed to unload '{name}': no such model is loaded", model=name
                )
            self._state.forget(name)
            await self._tell()
            settled = await self._changes.until(lambda: self._state.settled(name), timeout_s=self._load_timeout_s)
            await asyncio.to_thread(self._prune, name)
            if not settled:
                raise InferenceError(
                    ErrorCode.MODEL_LOAD_TIMEOUT,
                    f"failed to unload '{name}': a replica has not let go of it within {self._load_timeout_s:g} s",
                    model=name,
                )
            return self._routes()

    async def _finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do work to its end even when the caller hangs up: half a load would leave the server not ready for ever."""
        task = detach(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _require_explicit(self, name: str) -> None:
        check_name(name)
        if self._mode is not ModelControlMode.EXPLICIT:
            raise InferenceError(
                ErrorCode.MODEL_CONTROL_DISABLED,
                f"explicit model load / unload is not allowed in model control mode '{self._mode}'",
                model=name,
                mode=str(self._mode),
            )

    @contextlib.asynccontextmanager
    async def _turn(self, name: str, verb: str) -> AsyncIterator[None]:
        """Wait until nobody else loads or unloads the model, but no longer than one load may take."""
        async with contextlib.AsyncExitStack() as held:
            try:
                turn = self._turns.take(name, timeout_s=self._load_timeout_s + self._pace.settle_margin_s)
                await held.enter_async_context(turn)
            except TimeoutError:
                raise InferenceError(
                    ErrorCode.MODEL_LOAD_TIMEOUT,
                    f"failed to {verb} '{name}': an earlier load or unload of it is still under way",
                    model=name,
                ) from None
            yield

    def _routes(self) -> Routes:
        return Routes(self._term, self._state.revision, self._state.table(), self._state.missing())

    def _publish(self) -> None:
        self._changes.publish(self._state.revision)

    async def _reconcile(self) -> None:
        """Round after round, heal what a lost message or a new replica left behind."""
        while True:
            try:
                await self._tell()
            except Exception:
                logger.exception("a round of reconciliation failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.starting_s if self._fleet.starting else self._pace.round_s):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _tell(self) -> None:
        """Let everybody know what is wanted, and learn what is."""
        self._publish()
        await self._fleet.tell()
        self._publish()

    async def _read(self, load_models: tuple[str, ...]) -> None:
        """Want what the mode asks for at the start: every model of the repository, or the ones that were named."""
        scan = await asyncio.to_thread(self._repository.scan)
        everything = self._mode is not ModelControlMode.EXPLICIT or "*" in load_models
        names = scan.entries.keys() | scan.faults.keys() if everything else set(load_models)
        for name in sorted(names - self._state.wanted()):
            if name in scan.entries:
                self._want(scan.entries[name])
            else:
                self._state.blame(name, scan.faults.get(name) or _not_found(name))
        self._publish()

    def _want(self, entry: ModelEntry) -> None:
        """Want a model, unless this application has no runner deployment for it: then say so."""
        try:
            self._fleet.require(entry.specs)
        except InferenceError as fault:
            self._state.blame(entry.name, fault)
        else:
            self._state.want(entry.name, entry.specs, entry.absent)

    async def _poll(self, poll_s: float) -> None:
        """Follow the repository: what is new is loaded, what changed is loaded anew, what is gone is unloaded."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                self._follow(await asyncio.to_thread(self._repository.scan))
                await self._tell()
            except Exception:
                logger.exception("the model repository could not be followed")

    def _follow(self, scan: RepositoryScan) -> None:
        for name, entry in scan.entries.items():
            if not self._state.follows(name, entry.specs, entry.absent):
                self._want(entry)
        for name, fault in scan.faults.items():
            self._state.blame(name, fault)
        for name in self._state.wanted() - scan.entries.keys() - scan.faults.keys():
            self._state.forget(name)

    def _find(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> ModelEntry:
        """Return a model as the repository, or the caller's own configuration and files, have it."""
        if config is None and not files:
            return self._repository.entry(name)
        return self._repository.override(name, config, files or {}, into=self._overrides)

    def _prune(self, name: str) -> None:
        """Remove the files that came with loads of a model and that no version of it needs any more."""
        needed = {Path(folder).parent for folder in self._state.folders(name)}
        with contextlib.suppress(OSError):  # most models came without files
            for folder in (self._overrides / name).iterdir():
                if folder not in needed:
                    shutil.rmtree(folder, ignore_errors=True)
            (self._overrides / name).rmdir()

    def _check_loaded(self, name: str, *, settled: bool) -> None:
        """Raise why a version did not load, if one did not."""
        reason = self._state.shortfall(name)
        if reason:
            self._state.give_up(name, reason)
            code = ErrorCode.MODEL_LOAD_FAILED if settled else ErrorCode.MODEL_LOAD_TIMEOUT
            raise InferenceError(code, f"failed to load '{name}': {reason}", model=name)


def _not_found(name: str) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_NOT_FOUND, f"failed to load '{name}': no such model in the repository", model=name
    )
