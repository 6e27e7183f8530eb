"""The model versions that live in one replica: loaded and unloaded until they are what the desired state asks for."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from trygon.deployments.calls import detach
from trygon.deployments.instance import ModelInstance
from trygon.errors import ErrorCode, InferenceError
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import ModelState, VersionSpec, VersionStatus

logger = logging.getLogger(__name__)

PARALLEL_LOADS = 4
"""Versions of one replica that load at once: loading is mostly reading files and runtimes' own optimisation."""


@dataclass(slots=True)
class _Resident:
    """One version: what is wanted of it (None: to leave), what serves, and how the last load ended."""

    wanted: VersionSpec | None
    instance: ModelInstance | None = None
    attempted: str = ""
    reason: str = ""
    task: asyncio.Task[None] | None = None


class Residents:
    """All versions of one replica.

    `load` blocks and runs in a thread; `changed` is called on the event loop whenever a state changed. Neither a load
    nor the end of a version's last requests is waited for longer than `load_timeout_s`.
    """

    def __init__(
        self,
        load: Callable[[VersionSpec], ModelInstance],
        changed: Callable[[], None],
        *,
        load_timeout_s: float,
    ) -> None:
        self._load = load
        self._changed = changed
        self._load_timeout_s = load_timeout_s
        self._residents: dict[tuple[str, int], _Resident] = {}
        self._loads = asyncio.Semaphore(PARALLEL_LOADS)
        self._closing: set[asyncio.Task[None]] = set()

    def apply(self, specs: Iterable[VersionSpec]) -> None:
        """Start loading, reloading and unloading until exactly `specs` live here. Calling it again changes nothing."""
        wanted = {(spec.model, spec.version): spec for spec in specs}
        for key, resident in self._residents.items():
            if key not in wanted:
                resident.wanted = None
                self._start(key, resident)
        for key, spec in wanted.items():
            resident = self._residents.setdefault(key, _Resident(spec))
            resident.wanted = spec
            self._start(key, resident)

    def get(self, model: str, version: int) -> ModelInstance:
        """Return the instance that serves.

        Raises: MODEL_LOADING, MODEL_UNAVAILABLE, MODEL_NOT_READY.
        """
        resident = self._residents.get((model, version))
        if resident and resident.instance:
            return resident.instance
        code, state = ErrorCode.MODEL_NOT_READY, "not loaded on this replica"
        if resident and resident.task and resident.wanted:
            code, state = ErrorCode.MODEL_LOADING, "being loaded"
        elif resident and resident.reason:
            code, state = ErrorCode.MODEL_UNAVAILABLE, f"unavailable: {resident.reason}"
        raise InferenceError(code, f"version {version} of model '{model}' is {state}", model=model, version=version)

    async def find(self, model: str, version: int) -> ModelInstance:
        """Return the instance that serves; wait for the first one while it loads.

        Requests come here early when another replica has the version already.

        Raises: what `get` raises.
        """
        resident = self._residents.get((model, version))
        while resident and resident.task and resident.wanted and not resident.instance:
            await asyncio.wait([resident.task])
            resident = self._residents.get((model, version))
        return self.get(model, version)

    def specs(self) -> tuple[VersionSpec, ...]:
        """Return the versions that are wanted here."""
        return tuple(resident.wanted for resident in self._residents.values() if resident.wanted)

    def statuses(self) -> list[VersionStatus]:
        """Return what became of every version."""
        return [_status(*key, resident) for key, resident in self._residents.items()]

    def statistics(self) -> list[ModelStatistics]:
        """Return the statistics of every version that serves."""
        return [resident.instance.statistics for resident in self._residents.values() if resident.instance]

    async def settle(self) -> None:
        """Wait until nothing loads or unloads."""
        while tasks := [resident.task for resident in self._residents.values() if resident.task]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Unload everything."""
        self.apply(())
        await self.settle()

    def _start(self, key: tuple[str, int], resident: _Resident) -> None:
        if resident.task is None and not _as_wanted(resident):
            resident.task = detach(self._work(key, resident), name=f"load {key[0]} {key[1]}")
            self._changed()

    async def _work(self, key: tuple[str, int], resident: _Resident) -> None:
        try:
            while not _as_wanted(resident):
                if resident.wanted is None:
                    await self._leave(key, resident)
                    return
                await self._enter(resident, resident.wanted)
                self._changed()
        finally:
            resident.task = None
            self._changed()

    async def _leave(self, key: tuple[str, int], resident: _Resident) -> None:
        instance, resident.instance = resident.instance, None
        if instance:
            await self._close(instance)
            logger.info("unloaded model '%s' version %d", *key)
        if resident.wanted is None:
            del self._residents[key]
        else:  # wanted again while it left
            resident.attempted = ""
            await self._work(key, resident)

    async def _enter(self, resident: _Resident, spec: VersionSpec) -> None:
        if resident.instance and resident.instance.spec.generation == spec.generation:
            # What serves is wanted again: another generation was tried meanwhile and did not load.
            resident.attempted, resident.reason = spec.generation, ""
            return
        try:
            async with self._loads:
                instance = await self._load_in_thread(spec)
        except InferenceError as error:
            resident.reason = error.message
            logger.warning("model '%s' version %d did not load: %s", spec.model, spec.version, error.message)
        except Exception as error:
            resident.reason = f"{type(error).__name__}: {error}"
            logger.exception("model '%s' version %d did not load", spec.model, spec.version)
        else:
            previous, resident.instance, resident.reason = resident.instance, instance, ""
            resident.attempted = spec.generation
            logger.info("loaded model '%s' version %d", spec.model, spec.version)
            if previous:
                self._changed()
                await self._close(previous)
        resident.attempted = spec.generation

    async def _close(self, instance: ModelInstance) -> None:
        """Close an instance, and go on without it when its last requests do not end: a run may hang for ever."""
        closing = detach(instance.close(), name=f"close {instance.spec.model} {instance.spec.version}")
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        await asyncio.wait([closing], timeout=self._load_timeout_s)
        if not closing.done():
            logger.warning("requests of model '%s' do not end; it is unloaded once they do", instance.spec.model)

    def _closed(self, closing: "asyncio.Task[None]") -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (error := closing.exception()):
            logger.error("could not %s: %s", closing.get_name(), error, exc_info=error)

    async def _load_in_thread(self, spec: VersionSpec) -> ModelInstance:
        """Load in a thread of its own: a load that hangs is given up, and must not keep the replica from ending."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[ModelInstance] = loop.create_future()
        thread = threading.Thread(target=_settle, args=(loop, loaded, self._load, spec), daemon=True)
        thread.start()
        try:
            return await asyncio.wait_for(asyncio.shield(loaded), self._load_timeout_s)
        except TimeoutError:
            loaded.add_done_callback(self._discard)
            message = f"the load did not end within {self._load_timeout_s:g} s and was given up"
            raise InferenceError(ErrorCode.MODEL_LOAD_TIMEOUT, message, model=spec.model) from None

    def _discard(self, loaded: "asyncio.Future[ModelInstance]") -> None:
        """Close a model whose load was given up and ended all the same."""
        if not loaded.exception():
            closing = detach(self._close(loaded.result()))
            self._closing.add(closing)
            closing.add_done_callback(self._closed)


def _settle(
    loop: asyncio.AbstractEventLoop,
    loaded: "asyncio.Future[ModelInstance]",
    load: Callable[[VersionSpec], ModelInstance],
    spec: VersionSpec,
) -> None:
    """Run a load and give its outcome to the event loop, unless that is gone."""
    try:
        give = partial(loaded.set_result, load(spec))
    except BaseException as error:  # noqa: BLE001 - whatever a runtime throws is the load's outcome
        give = partial(loaded.set_exception, _as_failure(error))
    with contextlib.suppress(RuntimeError):  # the event loop is gone
        loop.call_soon_threadsafe(give)


def _as_failure(error: BaseException) -> Exception:
    """Return what a future can hold (asyncio refuses StopIteration), and what does not end the replica (SystemExit)."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _as_wanted(resident: _Resident) -> bool:
    return resident.wanted is not None and resident.attempted == resident.wanted.generation


def _status(model: str, version: int, resident: _Resident) -> VersionStatus:
    instance = resident.instance
    if resident.wanted is None:
        state = ModelState.UNLOADING
    elif instance:
        state = ModelState.READY
    elif resident.task:
        state = ModelState.LOADING
    else:
        state = ModelState.UNAVAILABLE
    return VersionStatus(
        model,
        version,
        state,
        reason=resident.reason,
        generation=instance.spec.generation if instance else "",
        attempted=resident.attempted,
        description=instance.description if instance else None,
    )
