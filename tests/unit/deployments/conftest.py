"""A scheduler on a clock that tests move, in front of a device whose executions they end."""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.item import Item
from trygon.deployments.scheduler import Scheduler


class Timer:
    """One call that is still to come."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SchedulerRig:
    """Drives one scheduler: `executions` are the batches that run, oldest first; time stands still in between."""

    def __init__(self, policy: BatchingPolicy) -> None:
        self.now_ns = 1_000_000_000
        self.timers: list[tuple[int, int, Timer]] = []
        self.batches: list[list[Any]] = []
        self.executions: list[tuple[Sequence[Item], asyncio.Future[Any]]] = []
        self.scheduler = Scheduler(policy, self.run, clock_ns=lambda: self.now_ns, call_later=self.call_later)

    def run(self, items: Sequence[Item]) -> asyncio.Future[Any]:
        self.batches.append([item.payload for item in items])
        execution = asyncio.get_running_loop().create_future()
        self.executions.append((items, execution))
        return execution

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self.timers, (self.now_ns + round(delay_s * 1e9), id(timer), timer))
        return timer

    async def turn(self) -> None:
        """Let the event loop run what is due."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def advance(self, milliseconds: float) -> None:
        """Move the clock, ringing every timer at its time."""
        await self.turn()
        end_ns = self.now_ns + round(milliseconds * 1e6)
        while self.timers and self.timers[0][0] <= end_ns:
            when_ns, _, timer = heapq.heappop(self.timers)
            self.now_ns = max(self.now_ns, when_ns)
            if not timer.cancelled:
                timer.callback()
                await self.turn()
        self.now_ns = end_ns

    async def finish(self, outcomes: Sequence[Any] | BaseException | None = None, *, execution: int = 0) -> None:
        """End an execution: each member's result is its payload unless told otherwise."""
        items, future = self.executions.pop(execution)
        if isinstance(outcomes, BaseException):
            future.set_exception(outcomes)
        else:
            future.set_result([item.payload for item in items] if outcomes is None else outcomes)
        await self.turn()

    async def cycle(self, milliseconds: float = 20) -> None:
        """Let the running execution take its time and end."""
        await self.advance(milliseconds)
        await self.finish()

    def submit(self, *payloads: Any, **options: Any) -> list[Item]:
        return [self.scheduler.submit(payload, **options) for payload in payloads]


@pytest.fixture(scope="session")
def make_rig() -> Callable[..., SchedulerRig]:
    """Return a maker of rigs; it takes what `BatchingPolicy` takes, a batch of 8 rows and no hold if not told."""

    def make(**policy: Any) -> SchedulerRig:
        return SchedulerRig(BatchingPolicy(**{"max_batch_size": 8, "cohort_hold": False} | policy))

    return make
