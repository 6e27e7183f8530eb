"""The cohort hold: whether to wait a moment for the callers that were just answered, learned per model.

Callers in a closed loop come back within a round trip of their answer. A scheduler that starts whatever waits the
moment an instance is free misses them by that round trip, and settles into two alternating half batches. Waiting for
them merges the halves. What it gains is one execution's fixed cost for each merge; what it costs is an idle instance
for the time held. Both are estimated from what is seen anyway, held or not, so nothing has to be probed:

* the return rate: of the rows just answered, the share that arrives again within the window after the answer, beyond
  what the average rate of arrival would have brought in the same time. Callers in a closed loop score near 1, and
  traffic that pays no attention to answers near 0, whatever its rate.
* the execution time and its part that does not grow with the batch (a least-squares line over recent executions). A
  model whose time is proportional to its rows gains nothing from larger batches, and is not held.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

HOLD_FRACTION = 0.6
"""Longest hold as a share of the recent execution time. A hold ends when the cohort is back, usually long before: the
round trip through HAProxy, ingress and a handle call takes 3 ms for one caller and 10 ms for 30 (two cores), so that a
tenth of a 20 ms execution would end each hold just before it pays."""

RETURN_MARGIN = 1.5
"""The window as a multiple of the time that cohorts have needed to come back."""

MAX_HOLD_NS = 100_000_000
"""Longest hold of all: no network's round trip is longer than this."""

MIN_HOLD_NS = 990_000
"""Shorter ones are not tried: event loops round their timers up to whole milliseconds, as epoll counts in them."""

MIN_RETURN_RATE = 0.25
"""Below this, those who return are outnumbered by those who were waited for in vain."""

_SMOOTHING = 0.2
_LINE_SMOOTHING = 0.05
_LEARNING = 0.1


@dataclass(slots=True)
class _Cohort:
    """Rows answered together, and how many of them came back before the window's end."""

    shape_key: Hashable
    ends_ns: int
    window_ns: int
    rows: int
    returned: int = 0
    back_ns: int = 0
    """When the last of them was back; 0 until then."""


class Ewma:
    """An exponentially weighted mean that starts as the plain mean of its first values."""

    __slots__ = ("_count", "_smoothing", "value")

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        """Take one more value into the mean."""
        self._count += 1
        self.value += max(self._smoothing, 1 / self._count) * (value - self.value)


class ExecutionTime:
    """Recent execution times as a line over rows: a fixed part, and a part per row. In nanoseconds."""

    __slots__ = ("_product", "_rows", "_square", "_time", "recent_ns")

    def __init__(self) -> None:
        self.recent_ns = Ewma(_SMOOTHING)
        self._rows = Ewma(_LINE_SMOOTHING)
        self._time = Ewma(_LINE_SMOOTHING)
        self._square = Ewma(_LINE_SMOOTHING)
        self._product = Ewma(_LINE_SMOOTHING)

    def add(self, rows: int, duration_ns: int) -> None:
        """Take in one execution."""
        self.recent_ns.add(duration_ns)
        self._rows.add(rows)
        self._time.add(duration_ns)
        self._square.add(rows * rows)
        self._product.add(rows * duration_ns)

    @property
    def fixed_ns(self) -> float:
        """The part that does not grow with the batch; all of it as long as batches were of one size."""
        rows, time = self._rows.value, self._time.value
        variance = self._square.value - rows * rows
        if variance <= 0.01 * rows * rows:
            return time
        slope = max(0.0, (self._product.value - rows * time) / variance)
        return max(0.0, time - slope * rows)


class CohortHold:
    """Learns from arrivals and answers, and says until when a release should be held.

    All times are nanoseconds of one clock. The state is one open cohort per instance at most.
    """

    __slots__ = (
        "_arrived",
        "_counted_from_ns",
        "_open",
        "_rate",
        "_return_ns",
        "_rows",
        "enabled",
        "execution",
        "return_rate",
    )

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.execution = ExecutionTime()
        # Begins at 0 rather than with the first cohort's rate: a single chance arrival must not switch the hold on.
        self.return_rate = 0.0
        self._rate = Ewma(_SMOOTHING)
        self._rows = Ewma(_SMOOTHING)
        self._return_ns = Ewma(_SMOOTHING)
        self._open: deque[_Cohort] = deque()
        self._arrived = 0
        self._counted_from_ns = 0

    @property
    def window_ns(self) -> int:
        """Longest hold at the recent execution time; 0 for models too fast for it."""
        window_ns = min(int(HOLD_FRACTION * self.execution.recent_ns.value), MAX_HOLD_NS)
        if self._return_ns.value:
            window_ns = min(window_ns, max(MIN_HOLD_NS, int(RETURN_MARGIN * self._return_ns.value)))
        return window_ns if window_ns >= MIN_HOLD_NS else 0

    def arrived(self, rows: int, shape_key: Hashable, now_ns: int) -> None:
        """Note an arrival, and take it for the return of the oldest cohort that is still expected."""
        if not self.enabled:
            return
        self._arrived += rows
        for cohort in self._open:
            if now_ns < cohort.ends_ns and cohort.returned < cohort.rows and cohort.shape_key == shape_key:
                cohort.returned += rows
                if cohort.returned >= cohort.rows:
                    cohort.back_ns = now_ns
                return

    def answered(self, answered_rows: int, batch_rows: int, shape_key: Hashable, now_ns: int, duration_ns: int) -> None:
        """Note that an execution of `batch_rows` ended just now and that `answered_rows` callers have their answer."""
        self.execution.add(batch_rows, duration_ns)
        if not self.enabled:
            return
        elapsed_ns = now_ns - self._counted_from_ns
        if elapsed_ns > 0:
            if self._counted_from_ns:
                self._rate.add(self._arrived / elapsed_ns)
            self._arrived, self._counted_from_ns = 0, now_ns
        while self._open and self._open[0].ends_ns <= now_ns:
            self._learn(self._open.popleft())
        window_ns = self.window_ns
        if answered_rows and window_ns:
            self._open.append(_Cohort(shape_key, now_ns + window_ns, window_ns, answered_rows))

    def until(self, shape_key: Hashable, waiting_rows: int, max_rows: int, now_ns: int) -> int:
        """Return until when a batch of this shape, of which so many rows wait, should be held; 0 is not at all."""
        if not self.enabled or waiting_rows >= max_rows or self.return_rate < MIN_RETURN_RATE:
            return 0
        expected = returned = until_ns = 0
        for cohort in self._open:
            if now_ns < cohort.ends_ns and cohort.returned < cohort.rows and cohort.shape_key == shape_key:
                expected += cohort.rows
                returned += cohort.returned
                until_ns = max(until_ns, cohort.ends_ns)
        if not until_ns:
            return 0
        # Alternating halves keep each caller for two executions, merged ones for one and the idle time: what is saved
        # is one execution's fixed cost, as far as callers do come back. That must outweigh the instance's idle time.
        # Few who are expected save less than the many who wait for them lose. All of this as it stood when the
        # answers left, so that a hold once begun also waits for the last to return.
        others = max(0, waiting_rows - returned)
        joining = min(expected * self.return_rate, max_rows - others)
        gain_ns = self.execution.fixed_ns * self.return_rate * min(1.0, 2 * joining / (others + joining))
        idle_ns = min(self._return_ns.value or self.window_ns, self.window_ns)
        return until_ns if gain_ns > idle_ns else 0

    def _learn(self, cohort: _Cohort) -> None:
        # Large cohorts say more: lock-in also takes the form of one row and all the others in turn.
        self._rows.add(cohort.rows)
        weight = min(1.0, _LEARNING * cohort.rows / self._rows.value)
        returned = min(cohort.returned, cohort.rows) / cohort.rows
        by_chance = min(1.0, self._rate.value * cohort.window_ns / cohort.rows)
        self.return_rate += weight * (max(0.0, returned - by_chance) - self.return_rate)
        if cohort.back_ns:
            self._return_ns.add(cohort.back_ns - (cohort.ends_ns - cohort.window_ns))
        elif self._return_ns.value:
            # They may be slower now than the window allows to see: let it grow again.
            self._return_ns.add(min(1.2 * self._return_ns.value, cohort.window_ns))
