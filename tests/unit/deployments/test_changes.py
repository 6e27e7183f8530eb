"""Waiting for a change: nobody misses one, and nobody waits for ever."""

import asyncio

from trygon.deployments.changes import Changes

LONG_S = 1000


async def test_everybody_who_waits_looks_again_at_a_new_revision() -> None:
    changes, seen = Changes(), [0]
    waiting = [asyncio.create_task(changes.until(lambda: seen[0] >= 2, timeout_s=LONG_S)) for _ in range(3)]
    for revision in (1, 2):
        await asyncio.sleep(0)
        seen[0] = revision
        changes.publish(revision)
    assert await asyncio.gather(*waiting) == [True] * 3


async def test_what_is_so_already_needs_no_change() -> None:
    assert await Changes().until(lambda: True, timeout_s=LONG_S)


async def test_nobody_waits_longer_than_wished() -> None:
    assert not await Changes().until(lambda: False, timeout_s=0)


async def test_a_revision_that_is_known_wakes_nobody() -> None:
    changes, looks = Changes(), []

    def look() -> bool:
        looks.append(1)
        return len(looks) > 1

    changes.publish(1)
    waiting = asyncio.create_task(changes.until(look, timeout_s=LONG_S))
    await asyncio.sleep(0)
    changes.publish(1)
    await asyncio.sleep(0)
    assert len(looks) == 1
    changes.publish(2)
    assert await waiting
