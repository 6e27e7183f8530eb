"""A stream of requests answered concurrently."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from trygon.deployments.api.open_inference.stream import answer_concurrently


async def numbers(count: int, taken: list[int] | None = None) -> AsyncIterator[int]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


async def double(number: int) -> int:
    return number * 2


async def test_every_request_is_answered() -> None:
    found = [answer async for answer in answer_concurrently(numbers(1000), double, limit=3)]
    assert sorted(found) == list(range(0, 2000, 2))


async def test_an_empty_stream_has_no_answers() -> None:
    assert [answer async for answer in answer_concurrently(numbers(0), double, limit=3)] == []


async def test_answers_overtake_each_other() -> None:
    gate = asyncio.Event()

    async def answer(number: int) -> int:
        if number == 0:
            await gate.wait()
        elif number == 2:
            gate.set()
        return number

    assert [found async for found in answer_concurrently(numbers(3), answer, limit=3)][-1] == 0


async def test_a_caller_that_does_not_read_is_held_up() -> None:
    taken: list[int] = []
    answers = answer_concurrently(numbers(100, taken), double, limit=4)
    await anext(answers)
    for _ in range(50):
        await asyncio.sleep(0)
    # Four hold a slot, and one more was read and waits for one.
    assert len(taken) <= 5
    await answers.aclose()


async def test_ending_early_cancels_what_is_under_way() -> None:
    cancelled: list[int] = []

    async def answer(number: int) -> int:
        try:
            if number:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    answers = answer_concurrently(numbers(3), answer, limit=3)
    assert await anext(answers) == 0
    await asyncio.sleep(0)
    await answers.aclose()
    assert sorted(cancelled) == [1, 2]


async def test_a_broken_stream_ends_the_answers() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    with pytest.raises(ExceptionGroup) as caught:
        [answer async for answer in answer_concurrently(broken(), double, limit=3)]
    assert caught.group_contains(ConnectionError)
