"""Control's line to a runner deployment: which replicas live, and when one is asked for."""

import asyncio
from typing import Any

import pytest

from trygon.deployments.messages import Desired, ReplicaReport
from trygon.deployments.runner_link import ASK_ROUNDS, DEPARTED, SILENCE_S, RunnerLink


class Broadcast:
    def __init__(self, results: list[Any] | Exception) -> None:
        self._results = results

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert timeout_s > 0
        assert return_exceptions
        if isinstance(self._results, Exception):
            raise self._results
        if isinstance(self._results, Slow):
            await self._results.gate.wait()
        return list(self._results)


class Slow(list[Any]):
    """Results that come when the gate is opened."""

    def __init__(self, results: list[Any]) -> None:
        super().__init__(results)
        self.gate = asyncio.Event()


class Handle:
    """A deployment handle whose replicas answer what the test says."""

    def __init__(self) -> None:
        self.results: list[Any] | Exception = []
        self.script: list[list[Any] | Exception] = []
        self.woken = 0
        self.report = self

    def broadcast(self, method: str, *arguments: Any) -> Broadcast:
        assert (method, len(arguments)) in {("apply", 1), ("report", 0)}
        return Broadcast(self.script.pop(0) if self.script else self.results)

    async def remote(self) -> None:
        self.woken += 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(replica: str) -> ReplicaReport:
    return ReplicaReport(replica, "onnx-cpu", (), (), ())


DESIRED = Desired("term", 1, ())


@pytest.fixture
def handle() -> Handle:
    return Handle()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def link(handle: Handle, clock: Clock) -> RunnerLink:
    return RunnerLink("onnx-cpu", handle, clock=clock)


async def test_replicas_that_answer_live_and_serve(link: RunnerLink, handle: Handle) -> None:
    handle.results = [said("a"), said("b")]
    assert await link.tell(DESIRED) == handle.results
    assert link.living() == {"a", "b"}


async def test_a_replica_that_died_is_gone_at_once(link: RunnerLink, handle: Handle) -> None:
    handle.results = [said("a"), said("b")]
    await link.ask()
    handle.results = [said("a"), RuntimeError("actor died")]
    await link.ask()
    assert link.living() == {"a"}


async def test_no_replica_at_all_means_that_none_lives(link: RunnerLink, handle: Handle) -> None:
    handle.results = [said("a")]
    await link.ask()
    handle.results = RuntimeError("deployment unavailable")
    assert await link.ask() == []
    assert link.living() == frozenset()


async def test_a_replica_that_is_slow_to_answer_is_believed_in_for_a_while(
    link: RunnerLink, handle: Handle, clock: Clock
) -> None:
    handle.results = [said("a")]
    await link.ask()
    handle.results = TimeoutError()
    clock.now += SILENCE_S - 1
    await link.ask()
    assert link.living() == {"a"}
    clock.now += 2
    await link.ask()
    assert link.living() == frozenset()


async def test_a_replica_that_is_still_starting_lives_once_it_was_heard(link: RunnerLink, handle: Handle) -> None:
    link.heard("new")
    handle.results = []
    await link.ask()
    assert link.living() == {"new"}


async def test_a_runner_is_woken_once_at_a_time(link: RunnerLink, handle: Handle) -> None:
    link.wake()
    link.wake()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert handle.woken == 1
    link.wake()
    await asyncio.sleep(0)
    assert handle.woken == 2


async def test_a_wake_that_fails_is_not_the_end(link: RunnerLink, handle: Handle) -> None:
    async def refuse() -> None:
        raise RuntimeError("no controller")

    handle.remote = refuse  # type: ignore[method-assign]
    link.wake()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    link.wake()


async def test_a_replica_that_left_is_not_heard_until_it_answers_again(link: RunnerLink, handle: Handle) -> None:
    handle.results = [said("a"), said("b")]
    await link.ask()
    handle.results = [said("a")]
    await link.ask()
    assert not link.heard("b")
    assert link.living() == {"a"}
    handle.results = [said("a"), said("b")]
    await link.ask()
    assert link.heard("b")
    assert link.living() == {"a", "b"}


async def test_of_many_replicas_that_left_only_the_last_are_remembered(link: RunnerLink, handle: Handle) -> None:
    for number in range(DEPARTED + 10):
        handle.results = [said(f"replica-{number}")]
        await link.tell(DESIRED)
    assert link.heard("replica-0")
    assert not link.heard(f"replica-{DEPARTED}")


async def test_a_replica_is_starting_until_it_answers_a_call_to_all(link: RunnerLink, handle: Handle) -> None:
    assert not link.starting
    assert link.heard("new")
    assert link.starting
    handle.results = [said("new")]
    await link.ask()
    assert not link.starting


async def test_an_earlier_round_that_ends_later_takes_nobody_for_gone(link: RunnerLink, handle: Handle) -> None:
    slow = handle.results = Slow([said("a")])
    first = asyncio.create_task(link.tell(DESIRED))
    await asyncio.sleep(0)
    handle.results = [said("a"), said("b")]
    await link.tell(DESIRED)
    slow.gate.set()
    await first
    assert link.living() == {"a", "b"}
    assert not link.starting


async def test_replicas_that_are_slow_to_say_what_they_have_are_asked_again(link: RunnerLink, handle: Handle) -> None:
    handle.script = [TimeoutError(), TimeoutError(), [said("a")]]
    assert await link.ask() == [said("a")]
    handle.script = [TimeoutError()] * ASK_ROUNDS
    assert await link.ask() == []
    assert handle.script == []
