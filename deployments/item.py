"""One request in a model's queue, which is also the future of its answer."""

import asyncio
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from trygon.errors import ErrorCode, InferenceError

if TYPE_CHECKING:
    from trygon.deployments.fairness import FairQueue

MIN_WEIGHT = 1e-3
MAX_WEIGHT = 1e3


class Item(asyncio.Future[Any]):
    """A request that waits for its turn, runs with others and is answered once.

    Await it for the answer; cancel it (or the task that awaits it) to leave the queue. Being the future itself, it
    costs one object per request and no task. Times are in nanoseconds of the scheduler's clock; `started_at_ns` is 0
    until the item has been released to an instance.
    """

    __slots__ = (
        "_abandon",
        "deadline_ns",
        "enqueued_at_ns",
        "lane",
        "level",
        "outcome",
        "payload",
        "rows",
        "sequence",
        "shape_key",
        "started_at_ns",
        "tenant",
        "weight",
    )

    def __init__(
        self,
        payload: Any,
        abandon: Callable[["Item"], None],
        *,
        rows: int = 1,
        shape_key: Hashable = None,
        tenant: str = "",
        weight: float = 1,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(loop=loop)
        self.payload = payload
        self.rows = rows
        self.shape_key = shape_key
        self.tenant = tenant
        # In this order a NaN becomes the smallest weight.
        self.weight = weight if weight == 1 else min(MAX_WEIGHT, max(MIN_WEIGHT, weight))
        self.level = 0
        self.sequence = 0
        self.enqueued_at_ns = 0
        self.started_at_ns = 0
        self.deadline_ns = 0
        self.lane: FairQueue | None = None
        self.outcome: Any = None
        self._abandon = abandon

    def cancel(self, msg: Any | None = None) -> bool:
        """Give up the answer; what has not started leaves the queue now. Returns whether it was still to come."""
        if not super().cancel(msg):
            return False
        self._abandon(self)
        return True

    def resolve(self, outcome: Any) -> None:
        """Answer with a result, or with an exception if `outcome` is one; nothing happens if the caller has left."""
        if self.done():
            return
        if not isinstance(outcome, BaseException):
            self.set_result(outcome)
        elif isinstance(outcome, Exception) and not isinstance(outcome, StopIteration):
            self.set_exception(outcome)
        else:
            # A future refuses StopIteration, and CancelledError would claim that this caller had cancelled.
            self.set_exception(member_error(outcome))


def member_error(error: BaseException) -> InferenceError:
    """Return one member's own error after a whole execution failed; `error` becomes its cause.

    Members raise in different tasks, and an exception that several tasks raise mixes their tracebacks.
    """
    if isinstance(error, InferenceError):
        own = error.restore(error.code.name, error.message, error.context)
    elif isinstance(error, asyncio.CancelledError):
        own = InferenceError(ErrorCode.RUNNER_DIED, "the execution was cancelled before it ended")
    else:
        own = InferenceError(ErrorCode.SYSTEM_INTERNAL, f"the execution failed: {type(error).__name__}: {error}")
    own.__cause__ = error
    return own
