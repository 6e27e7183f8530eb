"""The queue of a model: priority levels, their queue policies, and timeouts."""

import heapq
from bisect import insort
from collections.abc import Hashable, Sequence

from trygon.deployments.batching import BatchingPolicy, QueuePolicy, TimeoutAction
from trygon.deployments.fairness import Draft, FairQueue
from trygon.deployments.item import Item
from trygon.errors import ErrorCode, InferenceError

# Beyond a century a timeout is none: it also keeps hostile configurations away from the timer's arithmetic.
_LONGEST_TIMEOUT_S = 3.2e9


class _Level:
    """One priority level: those in time, and behind them those whose timeout has put them last."""

    __slots__ = ("delayed", "fresh", "policy", "size")

    def __init__(self, policy: QueuePolicy) -> None:
        self.policy = policy
        self.size = 0
        self.fresh = FairQueue()
        self.delayed = FairQueue()


class ModelQueue:
    """All items of one model that wait. Levels are emptied in order, 1 first; each level is fair to its tenants.

    A batch may hold items of several levels, as in Triton. Memory is that of the waiting items: levels, tenants and
    shapes go with their last item.
    """

    __slots__ = ("_deadlines", "_levels", "_numbers", "_policy", "_sequence", "_shapes", "_timed", "rows", "size")

    def __init__(self, policy: BatchingPolicy) -> None:
        self._policy = policy
        self._levels: dict[int, _Level] = {}
        self._numbers: list[int] = []
        self._shapes: dict[Hashable, int] = {}
        # The heap holds no items, so that those long answered do not keep their tensors alive.
        self._deadlines: list[tuple[int, int]] = []
        self._timed: dict[int, Item] = {}
        self._sequence = 0
        self.size = 0
        self.rows = 0

    @property
    def shapes(self) -> int:
        """How many different shapes wait."""
        return len(self._shapes)

    @property
    def tenants(self) -> int:
        """How many tenants wait, counted once per priority level."""
        return sum(level.fresh.tenants + level.delayed.tenants for level in self._levels.values())

    def rows_of(self, shape_key: Hashable) -> int:
        """Return how many rows of a shape wait."""
        return self._shapes.get(shape_key, 0)

    def head_shape(self) -> Hashable:
        """Return the shape of the batch that would be drawn now. The queue must not be empty."""
        level = self._levels[self._numbers[0]]
        return (level.fresh or level.delayed).head().shape_key

    def full(self, priority: int) -> bool:
        """Whether a request of this priority would be refused."""
        number = self._policy.level(priority)
        limit = self._policy.queue_policy(number).max_queue_size
        level = self._levels.get(number)
        return limit > 0 and level is not None and level.size >= limit

    def append(self, item: Item, priority: int, timeout_s: float | None) -> None:
        """Let an item wait, from `item.enqueued_at_ns` on.

        Raises: RUNNER_QUEUE_FULL.
        """
        number = self._policy.level(priority)
        level = self._levels.get(number)
        if level is None:
            level = self._add_level(number)
        policy = level.policy
        if policy.max_queue_size and level.size >= policy.max_queue_size:
            raise InferenceError(
                ErrorCode.RUNNER_QUEUE_FULL, "Exceeds maximum queue size", max_queue_size=policy.max_queue_size
            )
        item.level = number
        if timeout_s is not None or policy.default_timeout_s:
            self._set_deadline(item, policy.timeout_s(timeout_s))
        level.fresh.append(item)
        self._count(item, level, 1)

    def remove(self, item: Item) -> None:
        """Take out an item that waits."""
        if item.lane is not None:
            item.lane.remove(item)
            self._left(item)

    def draw(self, max_rows: int, max_items: int) -> list[Item]:
        """Take the next batch: one shape, at most so many rows and items, levels in order, tenants by weight."""
        draft = Draft(max_rows, max_items)
        for number in tuple(self._numbers):
            level = self._levels[number]
            level.fresh.draw(draft)
            level.delayed.draw(draft)
            if draft.full:
                break
        for item in draft.items:
            self._left(item)
        return draft.items

    def restore(self, items: Sequence[Item], now_ns: int) -> None:
        """Put drawn items back where they were; their deadlines still hold."""
        for item in reversed(items):
            level = self._levels.get(item.level) or self._add_level(item.level)
            was_delayed = 0 < item.deadline_ns <= now_ns
            (level.delayed if was_delayed else level.fresh).restore((item,))
            if item.deadline_ns and not was_delayed:
                self._watch(item)
            self._count(item, level, 1)

    def expire(self, now_ns: int) -> list[Item]:
        """Apply the timeout action to all whose time is over; return those that were rejected, now out of the queue."""
        rejected: list[Item] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            item = self._timed.pop(heapq.heappop(self._deadlines)[1], None)
            if item is None or item.lane is None:
                continue
            level = self._levels[item.level]
            if level.policy.timeout_action is TimeoutAction.REJECT:
                self.remove(item)
                rejected.append(item)
            else:
                item.lane.remove(item)
                level.delayed.append(item)
        return rejected

    def next_deadline(self) -> int:
        """Return when the next timeout is due, in ns, or 0."""
        while self._deadlines and self._deadlines[0][1] not in self._timed:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else 0

    def waiting(self) -> list[Item]:
        """Take everything out, in the order in which it would have been drawn."""
        items: list[Item] = []
        while self.size:
            items += self.draw(self.rows, self.size)
        return items

    def _add_level(self, number: int) -> _Level:
        level = self._levels[number] = _Level(self._policy.queue_policy(number))
        insort(self._numbers, number)
        return level

    def _set_deadline(self, item: Item, timeout_s: float) -> None:
        if 0 < timeout_s < _LONGEST_TIMEOUT_S:
            item.deadline_ns = item.enqueued_at_ns + int(timeout_s * 1e9)
            self._sequence += 1
            item.sequence = self._sequence
            self._watch(item)

    def _watch(self, item: Item) -> None:
        self._timed[item.sequence] = item
        heapq.heappush(self._deadlines, (item.deadline_ns, item.sequence))
        # Most items are served long before their deadline; without this their entries would pile up till then.
        if len(self._deadlines) > 2 * len(self._timed) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._timed]
            heapq.heapify(self._deadlines)

    def _left(self, item: Item) -> None:
        """Account for an item that is in no lane any more."""
        if item.deadline_ns:
            self._timed.pop(item.sequence, None)
        level = self._levels[item.level]
        self._count(item, level, -1)
        if not level.size:
            del self._levels[item.level]
            self._numbers.remove(item.level)

    def _count(self, item: Item, level: _Level, sign: int) -> None:
        level.size += sign
        self.size += sign
        self.rows += sign * item.rows
        rows = self._shapes.get(item.shape_key, 0) + sign * item.rows
        if rows:
            self._shapes[item.shape_key] = rows
        else:
            del self._shapes[item.shape_key]
