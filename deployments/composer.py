"""What a free instance gets next: Triton's rules for batch sizes and queue delay."""

from collections.abc import Sequence

from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.item import Item
from trygon.deployments.queueing import ModelQueue


class Composer:
    """Composes batches from a queue, or says until when a better one is worth waiting for.

    Triton's documentation of preferred_batch_size and max_queue_delay_microseconds: the largest preferred size that
    the waiting requests make up runs at once. If there is none, they run as they are, up to max_batch_size; or, with
    a delay, wait until they make up a preferred size, until the oldest has waited for the delay, or until no request
    behind them could join. After the delay they run as they are.
    """

    __slots__ = (
        "_delay_ns",
        "_delayed_until_ns",
        "_grow_to",
        "_largest",
        "_max_items",
        "_max_rows",
        "_queue",
        "_sizes",
    )

    def __init__(self, policy: BatchingPolicy, queue: ModelQueue) -> None:
        self._queue = queue
        self._max_rows = max(1, policy.max_batch_size)
        self._max_items = self._max_rows if policy.shares else 1
        self._delay_ns = int(policy.max_queue_delay_s * 1e9) if policy.shares else 0
        self._sizes: frozenset[int] = frozenset()
        if self._delay_ns or policy.preferred_batch_sizes:
            self._sizes = frozenset(policy.preferred_batch_sizes or (self._max_rows,))
        self._largest = max(self._sizes, default=0)
        self._grow_to = 0
        self._delayed_until_ns = 0

    def compose(self, now_ns: int, *, patient: bool) -> tuple[list[Item], int]:
        """Return a batch and 0, or an empty one and until when to wait. The queue must not be empty.

        Who is not `patient` gets a batch in any case.
        """
        queue = self._queue
        if not self._sizes:
            return queue.draw(self._max_rows, self._max_items), 0
        if patient and queue.rows < self._grow_to and now_ns < self._delayed_until_ns and queue.shapes == 1:
            return [], self._delayed_until_ns
        self._grow_to = 0
        drawn = queue.draw(self._max_rows, self._max_items)
        rows, best = self._measure(drawn)
        delayed_until_ns = min(item.enqueued_at_ns for item in drawn) + self._delay_ns
        delay_is_over = self._delay_ns > 0 and now_ns >= delayed_until_ns
        if best and not delay_is_over:
            queue.restore(drawn[best:], now_ns)
            return drawn[:best], 0
        can_grow = not queue.size and rows < self._largest
        if delay_is_over or not self._delay_ns or not can_grow or not patient:
            return drawn, 0
        queue.restore(drawn, now_ns)
        # With fewer rows than this no preferred size can be made up, so there is no need to draw again till then.
        self._grow_to = min(size for size in self._sizes if size > rows)
        self._delayed_until_ns = delayed_until_ns
        return [], delayed_until_ns

    def _measure(self, drawn: Sequence[Item]) -> tuple[int, int]:
        """Return the rows drawn, and how many of the items make up the best size, or 0.

        Best is the largest preferred size; failing that, all before the request that would lead beyond the largest.
        """
        rows = best = 0
        for index, item in enumerate(drawn):
            if index and not best and rows + item.rows > self._largest:
                best = index
            rows += item.rows
            if rows in self._sizes:
                best = index + 1
        return rows, best
