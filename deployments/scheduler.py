"""The scheduler of one model: who runs in the next batch, and when."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any

from trygon.deployments.alarm import Alarm, CallLater, call_later
from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.cohort import CohortHold
from trygon.deployments.composer import Composer
from trygon.deployments.item import Item, member_error
from trygon.deployments.ordering import ResponseOrder
from trygon.deployments.queueing import ModelQueue
from trygon.errors import ErrorCode, InferenceError
from trygon.models.statistics import SchedulerState

Run = Callable[[Sequence[Item]], Awaitable[Sequence[Any]]]
"""Executes one batch on a free instance; returns each item's result, or an exception in its place, in order."""


class Scheduler:
    """Lets requests wait while all instances are busy, and releases batches to those that are free.

    What may be asked of it is in `BatchingPolicy`; where Triton documents a rule, it is Triton's. Requests of
    different shapes never share a batch, but they do not cut each other's batches short either: a batch takes the
    later requests of its shape too. All methods belong to one event loop. Executions run in a context of their own,
    so that what is bound to one request's context (its cancellation, its trace) does not reach its neighbours.
    """

    def __init__(
        self,
        policy: BatchingPolicy,
        run: Run,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        call_later: CallLater = call_later,
    ) -> None:
        self.policy = policy
        self._run = run
        self._clock_ns = clock_ns
        self._max_rows = max(1, policy.max_batch_size)
        self._queue = ModelQueue(policy)
        self._composer = Composer(policy, self._queue)
        self._hold = CohortHold(enabled=policy.cohort_hold and policy.shares)
        self._order = ResponseOrder() if policy.preserve_ordering else None
        self._alarm = Alarm(clock_ns, call_later, self._release_soon)
        self._running: set[asyncio.Future[Sequence[Any]]] = set()
        self._context = contextvars.Context()
        self._release_due = False
        self._held_since_ns = 0
        self._holds = 0
        self._held_ns = 0
        self._closing = False
        self._idle = asyncio.Event()

    def submit(
        self,
        payload: Any,
        *,
        rows: int = 1,
        shape_key: Hashable = None,
        tenant: str = "",
        weight: float = 1,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Item:
        """Queue a request and return the future of its answer. Cancel it to leave.

        `rows` is its batch size (1 where the model has no batch dimension), `shape_key` tells apart what must not
        share a batch, `weight` is the tenant's share (0.001 to 1000), `priority` 0 is the model's default. `timeout_s`
        limits the time in the queue where the queue policy lets a request do so.

        The future raises: TENSOR_BATCH_TOO_LARGE, RUNNER_QUEUE_FULL, REQUEST_QUEUE_TIMEOUT, SYSTEM_SHUTTING_DOWN, and
        whatever the execution raised.
        """
        item = Item(
            payload,
            self._abandon,
            rows=rows if rows > 1 and self.policy.max_batch_size else 1,
            shape_key=shape_key,
            tenant=tenant,
            weight=weight,
            loop=asyncio.get_running_loop(),
        )
        item.enqueued_at_ns = now_ns = self._clock_ns()
        if self._closing:
            item.resolve(InferenceError(ErrorCode.SYSTEM_SHUTTING_DOWN, "the model's queue is closed"))
            return item
        if item.rows > self._max_rows:
            item.resolve(
                InferenceError(
                    ErrorCode.TENSOR_BATCH_TOO_LARGE,
                    f"a batch of {rows} rows is larger than max_batch_size {self._max_rows}",
                    rows=rows,
                    max_batch_size=self._max_rows,
                )
            )
            return item
        if self._release_due and self._queue.full(priority):
            # What a free instance will take at the end of this loop turn anyway does not fill the queue.
            contextvars.Context().run(self._release)
        try:
            self._queue.append(item, priority, timeout_s)
        except InferenceError as error:
            item.resolve(error)
            return item
        if self._order is not None:
            self._order.expect(item)
        self._hold.arrived(item.rows, shape_key, now_ns)
        if item.deadline_ns:
            self._alarm.by(item.deadline_ns)
        if len(self._running) < self.policy.instances:
            self._release_soon()
        return item

    def refuse(self, error: InferenceError) -> Item:
        """Return the future of a request that is refused before it is queued."""
        item = Item(None, self._abandon, loop=asyncio.get_running_loop())
        item.enqueued_at_ns = self._clock_ns()
        item.resolve(error)
        return item

    async def close(self, *, drain: bool = False) -> None:
        """Take no new requests; run (`drain`) or fail what waits; return when nothing runs any more.

        May be called again, to give up a drain that takes too long. Those that fail get SYSTEM_SHUTTING_DOWN.
        """
        self._closing = True
        if not drain:
            for item in self._queue.waiting():
                self._settle(item, InferenceError(ErrorCode.SYSTEM_SHUTTING_DOWN, "the model is being unloaded"))
        self._release_soon()
        await self._idle.wait()

    def snapshot(self) -> SchedulerState:
        """Return what the scheduler is doing and what it has learned."""
        hold = self._hold
        return SchedulerState(
            waiting_requests=self._queue.size,
            waiting_rows=self._queue.rows,
            waiting_tenants=self._queue.tenants,
            running=len(self._running),
            instances=self.policy.instances,
            hold_enabled=hold.enabled,
            holding=self._held_since_ns > 0,
            hold_window_s=hold.window_ns / 1e9,
            return_rate=hold.return_rate,
            execution_s=hold.execution.recent_ns.value / 1e9,
            fixed_s=hold.execution.fixed_ns / 1e9,
            holds=self._holds,
            held_s=self._held_ns / 1e9,
        )

    def _release_soon(self) -> None:
        """Release at the end of this loop turn, so that all who arrive in it travel together."""
        if not self._release_due:
            self._release_due = True
            asyncio.get_running_loop().call_soon(self._release, context=self._context)

    def _release(self) -> None:
        """Start what should run now, and set the alarm for what should not yet."""
        self._release_due = False
        queue, now_ns = self._queue, self._clock_ns()
        for item in queue.expire(now_ns):
            self._settle(item, InferenceError(ErrorCode.REQUEST_QUEUE_TIMEOUT, "Request timeout expired"))
        while queue.size and len(self._running) < self.policy.instances:
            wait_until_ns = 0 if self._closing else self._hold_until(now_ns)
            if not wait_until_ns:
                batch, wait_until_ns = self._composer.compose(now_ns, patient=not self._closing)
            if wait_until_ns:
                self._alarm.by(wait_until_ns)
                break
            self._start(batch, now_ns)
        if not queue.size:
            self._track_hold(0, now_ns)
        deadline_ns = queue.next_deadline()
        if deadline_ns:
            self._alarm.by(deadline_ns)
        if self._closing and not queue.size and not self._running:
            self._alarm.cancel()
            self._idle.set()

    def _hold_until(self, now_ns: int) -> int:
        """Return until when the next batch waits for its cohort, or 0. With a second idle instance nobody waits."""
        until_ns = 0
        if len(self._running) == self.policy.instances - 1:
            shape_key = self._queue.head_shape()
            until_ns = self._hold.until(shape_key, self._queue.rows_of(shape_key), self._max_rows, now_ns)
        self._track_hold(until_ns, now_ns)
        return until_ns

    def _track_hold(self, until_ns: int, now_ns: int) -> None:
        if until_ns and not self._held_since_ns:
            self._held_since_ns = now_ns
            self._holds += 1
        elif not until_ns and self._held_since_ns:
            self._held_ns += now_ns - self._held_since_ns
            self._held_since_ns = 0

    def _start(self, batch: Sequence[Item], now_ns: int) -> None:
        for item in batch:
            item.started_at_ns = now_ns
        try:
            execution: asyncio.Future[Sequence[Any]] = asyncio.ensure_future(self._run(batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the members' answer
            execution = asyncio.get_running_loop().create_future()
            execution.set_exception(error)
        self._running.add(execution)
        execution.add_done_callback(partial(self._finish, batch, now_ns), context=self._context)

    def _finish(self, batch: Sequence[Item], started_ns: int, execution: asyncio.Future[Sequence[Any]]) -> None:
        """Answer a batch's members and let the next one go."""
        self._running.discard(execution)
        now_ns = self._clock_ns()
        answered = 0
        for item, outcome in zip(batch, _outcomes(execution, len(batch)), strict=True):
            answered += self._settle(item, outcome)
        rows = sum(item.rows for item in batch)
        self._hold.answered(answered, rows, batch[0].shape_key, now_ns, now_ns - started_ns)
        # Behind the callbacks of those just answered: whoever asks again at once is in time for the next batch.
        self._release_soon()

    def _settle(self, item: Item, outcome: Any) -> int:
        """Answer an item, or keep its outcome till its turn; return how many rows' callers have an answer now."""
        rows = 0
        for ready in (item,) if self._order is None else self._order.settle(item, outcome):
            if not ready.done():
                rows += ready.rows
                ready.resolve(outcome if self._order is None else ready.outcome)
        return rows

    def _abandon(self, item: Item) -> None:
        """Forget an item whose caller left; if it runs already, its outcome will be dropped."""
        self._queue.remove(item)
        if self._order is not None:
            for ready in self._order.drop(item):
                ready.resolve(ready.outcome)
        if self._closing:
            self._release_soon()


def _outcomes(execution: asyncio.Future[Sequence[Any]], count: int) -> Sequence[Any]:
    """Return one outcome per member, also where the whole execution failed."""
    if execution.cancelled():
        return [member_error(asyncio.CancelledError()) for _ in range(count)]
    error = execution.exception()
    if error is not None:
        return [member_error(error) for _ in range(count)]
    outcomes = execution.result()
    if len(outcomes) != count:
        fault = RuntimeError(f"{len(outcomes)} results for {count} requests")
        return [member_error(fault) for _ in range(count)]
    return outcomes
