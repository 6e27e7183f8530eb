"""Coalescing at the ingress: who travels with whom, and that nobody harms a neighbour."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.deployments.coalescing import Coalescing, Member
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import InferRequest

LONG_S = 3600.0
"""A wait that no test sees the end of."""


class Runner:
    """Takes calls and answers them when the test says; the answer to a request is its id."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: list[asyncio.Future[Sequence[Any]]] = []
        self.ids: list[str] = []
        self.abandoned: list[tuple[str, int]] = []

    def abandon(self, call: str, index: int) -> None:
        self.abandoned.append((call, index))

    async def send(self, call: str, requests: Sequence[InferRequest]) -> Sequence[Any]:
        self.ids.append(call)
        self.calls.append([request.id for request in requests])
        answer: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return await answer

    def answer(self, index: int) -> None:
        self.answers[index].set_result(self.calls[index])

    def answer_all(self) -> None:
        for index, answer in enumerate(self.answers):
            if not answer.done():
                self.answer(index)


def submitter(coalescing: Coalescing, runner: Runner, *, max_rows: int = 8) -> Callable[..., Member]:
    def submit(identity: str, rows: int = 1, group: str = "m") -> Member:
        request = InferRequest("m", (), id=identity)
        return coalescing.submit(group, request, rows, max_rows=max_rows, line=runner)

    return submit


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def runner() -> Runner:
    return Runner()


async def test_a_lone_request_goes_at_once(runner: Runner) -> None:
    member = submitter(Coalescing(max_wait_s=LONG_S), runner)("a")
    await settle()
    assert runner.calls == [["a"]]
    runner.answer(0)
    assert await member == "a"


async def test_requests_of_one_loop_turn_travel_together(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    members = [submit(name) for name in "abc"]
    await settle()
    assert runner.calls == [["a", "b", "c"]]
    runner.answer(0)
    assert await asyncio.gather(*members) == ["a", "b", "c"]


async def test_what_arrives_while_calls_are_under_way_travels_with_the_next(runner: Runner) -> None:
    submit = submitter(Coalescing(max_in_flight=2, max_wait_s=LONG_S), runner)
    for name in "ab":
        submit(name)
        await settle()
    waiting = [submit(name) for name in "cd"]
    await settle()
    assert runner.calls == [["a"], ["b"]]
    runner.answer(0)
    await settle()
    assert runner.calls == [["a"], ["b"], ["c", "d"]]
    runner.answer(2)
    assert await asyncio.gather(*waiting) == ["c", "d"]


async def test_nobody_waits_longer_than_the_limit(runner: Runner) -> None:
    submit = submitter(Coalescing(max_in_flight=1, max_wait_s=0), runner)
    submit("a")
    await settle()
    submit("b")
    async with asyncio.timeout(10):
        while len(runner.calls) < 2:  # noqa: ASYNC110 - the limit is the event loop's own timer
            await asyncio.sleep(0)
    assert runner.calls == [["a"], ["b"]]


async def test_a_full_batch_does_not_wait(runner: Runner) -> None:
    submit = submitter(Coalescing(max_in_flight=1, max_wait_s=LONG_S), runner, max_rows=4)
    submit("a")
    await settle()
    submit("b", rows=2)
    await settle()
    assert len(runner.calls) == 1
    submit("c", rows=2)
    await settle()
    assert runner.calls == [["a"], ["b", "c"]]


async def test_a_call_carries_no_more_rows_than_a_batch(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner, max_rows=4)
    for name, rows in (("a", 3), ("b", 2), ("c", 1), ("d", 1), ("e", 9)):
        submit(name, rows=rows)
    await settle()
    assert runner.calls == [["a"], ["b", "c", "d"], ["e"]]


async def test_groups_travel_apart(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    submit("a", group="m")
    submit("b", group="n")
    await settle()
    assert sorted(runner.calls) == [["a"], ["b"]]


async def test_each_member_gets_its_own_error(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    good, bad = submit("good"), submit("bad")
    await settle()
    error = InferenceError(ErrorCode.RUNNER_INPUT_REJECTED, "negative")
    runner.answers[0].set_result(["good", error])
    assert await good == "good"
    assert await bad is error


async def test_a_call_that_fails_fails_for_all_its_members(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    members = [submit(name) for name in "ab"]
    await settle()
    runner.answers[0].set_exception(RuntimeError("replica died"))
    assert [str(error) for error in await asyncio.gather(*members, return_exceptions=True)] == ["replica died"] * 2


async def test_a_call_that_was_cancelled_elsewhere_is_an_error_and_no_cancellation(runner: Runner) -> None:
    member = submitter(Coalescing(max_wait_s=LONG_S), runner)("a")
    await settle()
    runner.answers[0].cancel()
    with pytest.raises(InferenceError) as caught:
        await member
    assert caught.value.code is ErrorCode.RUNNER_DIED


async def test_who_leaves_before_the_departure_does_not_travel(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    gone, stays = submit("gone"), submit("stays")
    gone.cancel()
    await settle()
    assert runner.calls == [["stays"]]
    runner.answer(0)
    assert await stays == "stays"


async def test_who_leaves_under_way_does_not_take_the_others_along(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    gone, stays = submit("gone"), submit("stays")
    await settle()
    assert gone.cancel()
    assert not gone.cancel()
    await settle()
    assert not runner.answers[0].cancelled()
    assert runner.abandoned == [(runner.ids[0], 0)]
    runner.answer(0)
    assert await stays == "stays"


async def test_a_call_that_nobody_waits_for_is_cancelled(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    members = [submit(name) for name in "ab"]
    await settle()
    for member in members:
        member.cancel()
    await settle()
    assert runner.answers[0].cancelled()
    again = submit("c")
    await settle()
    runner.answer(1)
    assert await again == "c"


async def test_a_departure_that_all_have_left_is_none(runner: Runner) -> None:
    submit = submitter(Coalescing(max_wait_s=LONG_S), runner)
    submit("a").cancel()
    await settle()
    assert runner.calls == []


async def test_a_call_does_not_belong_to_the_context_of_a_request() -> None:
    import contextvars  # noqa: PLC0415 - only this test needs it

    request = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    class Listening(Runner):
        async def send(self, call: str, requests: Sequence[InferRequest]) -> Sequence[Any]:
            seen.append(request.get())
            return await super().send(call, requests)

    runner = Listening()
    request.set("one client's")
    coalescing = Coalescing(max_in_flight=1, max_wait_s=LONG_S)
    first = coalescing.submit("m", InferRequest("m", (), id="a"), 1, max_rows=8, line=runner)
    await settle()
    coalescing.submit("m", InferRequest("m", (), id="b"), 1, max_rows=8, line=runner)
    runner.answer(0)
    await first
    await settle()
    assert seen == ["none", "none"]


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("xyz"), st.sampled_from(["ask", "leave", "answer"]))))
def test_nobody_is_lost_doubled_or_given_anothers_answer(steps: list[tuple[int, str, str]]) -> None:
    async def run() -> None:
        runner = Runner()
        submit = submitter(Coalescing(max_wait_s=0), runner, max_rows=4)
        members: dict[str, Member] = {}
        for number, (rows, group, step) in enumerate(steps):
            identity = f"{group}{number}"
            members[identity] = submit(identity, rows=rows, group=group)
            if step == "leave":
                members[identity].cancel()
            elif step == "answer":
                await settle()
                runner.answer_all()
        while not all(member.done() for member in members.values()):
            await settle()
            runner.answer_all()
        for identity, member in members.items():
            assert member.cancelled() or member.result() == identity
        sent = [identity for call in runner.calls for identity in call]
        assert len(sent) == len(set(sent))
        answered = {identity for identity, member in members.items() if not member.cancelled()}
        assert answered <= set(sent)

    asyncio.run(run())
