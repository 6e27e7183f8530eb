"""Turns by name: one at a time, in order, and nothing is kept of names that nobody holds."""

import asyncio

import pytest

from trygon.deployments.turns import Turns

LONG_S = 1000


async def test_a_name_is_held_by_one_at_a_time_in_the_order_of_asking() -> None:
    turns, order = Turns(), []

    async def work(number: int) -> None:
        async with turns.take("m", timeout_s=LONG_S):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(3)))
    assert order == [0, 0, 1, 1, 2, 2]


async def test_other_names_do_not_wait() -> None:
    turns = Turns()
    async with turns.take("a", timeout_s=LONG_S), turns.take("b", timeout_s=LONG_S):
        assert len(turns) == 2


async def test_who_waits_too_long_is_told_and_the_turn_goes_on() -> None:
    turns = Turns()
    async with turns.take("m", timeout_s=LONG_S):
        with pytest.raises(TimeoutError):
            async with turns.take("m", timeout_s=0):
                pass
    async with turns.take("m", timeout_s=0):
        pass


async def test_nothing_is_kept_of_a_name_that_nobody_holds() -> None:
    turns = Turns()
    for number in range(100):
        async with turns.take(f"m{number}", timeout_s=LONG_S):
            pass
    assert len(turns) == 0
