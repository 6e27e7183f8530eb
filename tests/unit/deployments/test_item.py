import asyncio

import pytest

from trygon.deployments.item import MAX_WEIGHT, MIN_WEIGHT, Item


async def test_an_item_is_answered_once() -> None:
    item = Item("payload", print)
    item.resolve(1)
    item.resolve(2)
    assert await item == 1
    assert not item.cancel()


async def test_leaving_tells_the_queue_once() -> None:
    left: list[Item] = []
    item = Item("payload", left.append)
    assert item.cancel("enough")
    assert not item.cancel()
    item.resolve(1)
    assert left == [item]
    with pytest.raises(asyncio.CancelledError):
        await item


async def test_a_timeout_around_an_item_is_leaving() -> None:
    left: list[Item] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Item("payload", left.append), 0)
    assert len(left) == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [(1, 1), (2.5, 2.5), (0, MIN_WEIGHT), (-1, MIN_WEIGHT), (float("nan"), MIN_WEIGHT), (float("inf"), MAX_WEIGHT)],
)
async def test_weights_are_kept_within_bounds(given: float, kept: float) -> None:
    assert Item(None, print, weight=given).weight == kept
