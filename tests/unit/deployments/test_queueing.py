import asyncio
from collections.abc import Iterator

import pytest

from trygon.deployments.batching import BatchingPolicy, QueuePolicy, TimeoutAction
from trygon.deployments.item import Item
from trygon.deployments.queueing import ModelQueue
from trygon.errors import ErrorCode, InferenceError

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Queueing:
    """A model's queue and shorthand to fill it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, default: QueuePolicy, **policy: int) -> None:
        self.loop = loop
        self.queue = ModelQueue(BatchingPolicy(max_batch_size=64, default_queue_policy=default, **policy))

    def add(self, *, priority: int = 0, timeout_s: float | None = None, shape: str = "") -> Item:
        item = Item(None, self.queue.remove, shape_key=shape, loop=self.loop)
        item.enqueued_at_ns = SECOND
        self.queue.append(item, priority, timeout_s)
        return item


def test_all_state_goes_with_the_last_item(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Queueing(loop, QueuePolicy(default_timeout_s=1), priority_levels=2**63, default_priority_level=1)
    items = [waiting.add(priority=level, shape=str(level)) for level in (1, 2**40, 2**62)]
    assert (waiting.queue.size, waiting.queue.shapes, waiting.queue.tenants) == (3, 3, 3)
    assert waiting.queue.next_deadline() == 2 * SECOND
    items[1].cancel()
    assert waiting.queue.waiting() == [items[0], items[2]]
    assert (waiting.queue.size, waiting.queue.rows, waiting.queue.shapes, waiting.queue.tenants) == (0, 0, 0, 0)
    assert waiting.queue.next_deadline() == 0


def test_a_level_counts_only_its_own(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Queueing(loop, QueuePolicy(max_queue_size=1), priority_levels=2, default_priority_level=2)
    waiting.add()
    assert waiting.queue.full(2)
    assert not waiting.queue.full(1)
    with pytest.raises(InferenceError, match="Exceeds maximum queue size") as caught:
        waiting.add()
    assert caught.value.code is ErrorCode.RUNNER_QUEUE_FULL
    waiting.add(priority=1)
    assert waiting.queue.size == 2


def test_timeouts_come_in_their_own_order(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Queueing(loop, QueuePolicy(default_timeout_s=3, allow_timeout_override=True))
    slow, fast = waiting.add(), waiting.add(timeout_s=1)
    assert waiting.queue.expire(2 * SECOND - 1) == []
    assert waiting.queue.expire(2 * SECOND) == [fast]
    assert waiting.queue.expire(9 * SECOND) == [slow]
    assert waiting.queue.size == 0


def test_the_delayed_still_count_and_have_no_further_timeout(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Queueing(loop, QueuePolicy(1, 1, TimeoutAction.DELAY))
    late = waiting.add()
    assert waiting.queue.expire(3 * SECOND) == []
    assert waiting.queue.full(0)
    assert waiting.queue.next_deadline() == 0
    assert waiting.queue.head_shape() == ""
    assert waiting.queue.draw(8, 8) == [late]
    waiting.queue.restore([late], 3 * SECOND)
    assert waiting.queue.expire(9 * SECOND) == []
    assert waiting.queue.draw(8, 8) == [late]


def test_restored_items_keep_their_deadline(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Queueing(loop, QueuePolicy(default_timeout_s=1))
    item = waiting.add()
    waiting.queue.restore(waiting.queue.draw(8, 8), SECOND)
    assert waiting.queue.expire(2 * SECOND) == [item]


def test_deadlines_of_those_served_do_not_pile_up(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Queueing(loop, QueuePolicy(default_timeout_s=3600))
    for _ in range(1000):
        waiting.add()
        waiting.queue.draw(8, 8)
    assert len(waiting.queue._deadlines) < 100  # noqa: SLF001 - nothing outside shows it, but memory
    last = waiting.add(timeout_s=None)
    assert waiting.queue.next_deadline() == last.deadline_ns
