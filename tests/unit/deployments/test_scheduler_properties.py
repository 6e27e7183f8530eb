import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trygon.deployments.batching import QueuePolicy, TimeoutAction
from trygon.deployments.item import Item
from trygon.errors import ErrorCode, InferenceError

Rig = Callable[..., Any]

EXPECTED = {
    ErrorCode.RUNNER_QUEUE_FULL,
    ErrorCode.REQUEST_QUEUE_TIMEOUT,
    ErrorCode.SYSTEM_SHUTTING_DOWN,
    ErrorCode.SYSTEM_INTERNAL,
    ErrorCode.RUNNER_DIED,
}

queue_policies = st.builds(
    QueuePolicy,
    max_queue_size=st.sampled_from([0, 0, 3]),
    default_timeout_s=st.sampled_from([0, 0, 0.003]),
    allow_timeout_override=st.booleans(),
    timeout_action=st.sampled_from(TimeoutAction),
)
sizes = st.one_of(
    st.tuples(st.sampled_from([0, 1, 4, 8]), st.just(())),
    st.tuples(st.just(8), st.sampled_from([(2,), (3, 6), (8,)])),
)
policies = st.fixed_dictionaries(
    {
        "sizes": sizes,
        "instances": st.integers(1, 3),
        "max_queue_delay_s": st.sampled_from([0, 0.002]),
        "cohort_hold": st.booleans(),
        "priority_levels": st.just(3),
        "default_priority_level": st.integers(1, 3),
        "default_queue_policy": queue_policies,
        "priority_queue_policies": st.dictionaries(st.integers(1, 3), queue_policies, max_size=2),
    }
)
ordered_policies = st.fixed_dictionaries(
    {
        "max_batch_size": st.sampled_from([0, 4]),
        "instances": st.integers(1, 3),
        "preserve_ordering": st.just(value=True),
        "default_queue_policy": st.just(QueuePolicy(default_timeout_s=0.003, max_queue_size=4)),
    }
)
arrivals = st.fixed_dictionaries(
    {
        "rows": st.integers(0, 4),
        "shape_key": st.sampled_from(["a", "a", "b"]),
        "tenant": st.sampled_from(["x", "x", "y", "z"]),
        "weight": st.sampled_from([1, 0.1, 5, float("nan")]),
        "priority": st.integers(-1, 4),
        "timeout_s": st.sampled_from([None, None, 0.001]),
    }
)
steps = st.one_of(
    st.tuples(st.just("submit"), st.lists(arrivals, min_size=1, max_size=6)),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 2.0, 12.0])),
    st.tuples(st.just("finish"), st.integers(0, 9), st.sampled_from(["well", "well", "some", "raises", "dies"])),
    st.tuples(st.just("finish"), st.integers(0, 9), st.just("well")),
    st.tuples(st.just("cancel"), st.integers(0, 99)),
)


class Witness:
    """Drives a scheduler through a schedule and remembers all that must hold."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.items: list[Item] = []
        self.answers: dict[str, list[int]] = defaultdict(list)
        self.ran: set[int] = set()
        self.left: set[int] = set()
        self.checked = 0

    async def step(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)
        await self.bench.turn()
        self.check_executions()

    async def submit(self, requests: Sequence[dict[str, Any]]) -> None:
        for request in requests:
            options = request | {"rows": min(request["rows"], max(1, self.bench.scheduler.policy.max_batch_size))}
            number = len(self.items)
            (item,) = self.bench.submit(number, **options)
            self.items.append(item)
            # Refusals do not wait for their turn.
            if not item.done():
                item.add_done_callback(lambda done: self.answers[done.tenant].append(done.payload))

    async def advance(self, milliseconds: float) -> None:
        await self.bench.advance(milliseconds)

    async def finish(self, which: int, how: str) -> None:
        if not self.bench.executions:
            return
        execution = which % len(self.bench.executions)
        items, future = self.bench.executions[execution]
        outcomes: Any = [("answer", item.payload) for item in items]
        if how == "some":
            outcomes = [ValueError(item.payload) if item.payload % 2 else ("answer", item.payload) for item in items]
        elif how == "raises":
            outcomes = RuntimeError("all of them")
        if how == "dies":
            self.bench.executions.pop(execution)
            future.cancel()
        else:
            await self.bench.finish(outcomes, execution=execution)

    async def cancel(self, which: int) -> None:
        if self.items:
            item = self.items[which % len(self.items)]
            item.cancel()
            if not item.started_at_ns:
                self.left.add(item.payload)

    def check_executions(self) -> None:
        policy = self.bench.scheduler.policy
        assert len(self.bench.executions) <= policy.instances
        for batch in self.bench.batches[self.checked :]:
            members = [self.items[number] for number in batch]
            assert batch
            assert len({member.shape_key for member in members}) == 1
            assert sum(member.rows for member in members) <= max(1, policy.max_batch_size)
            assert policy.max_batch_size or len(members) == 1
            assert self.ran.isdisjoint(batch)
            assert self.left.isdisjoint(batch)
            self.ran.update(batch)
        self.checked = len(self.bench.batches)

    async def end(self, *, drain: bool) -> None:
        closing = asyncio.create_task(self.bench.scheduler.close(drain=drain))
        await self.bench.turn()
        while self.bench.executions:
            await self.finish(0, "well")
        await closing
        self.check_executions()
        snapshot = self.bench.scheduler.snapshot()
        assert (snapshot.waiting_requests, snapshot.waiting_rows, snapshot.waiting_tenants) == (0, 0, 0)
        assert snapshot.running == 0
        for number, item in enumerate(self.items):
            assert item.done()
            if item.cancelled():
                continue
            error = item.exception()
            if error is None:
                assert item.result() == ("answer", number)
                assert number in self.ran
            elif isinstance(error, ValueError):
                assert error.args == (number,)
            else:
                assert isinstance(error, InferenceError)
                assert error.code in EXPECTED


async def drive(bench: Any, schedule: Sequence[tuple[Any, ...]], *, drain: bool) -> Witness:
    witness = Witness(bench)
    for step in schedule:
        await witness.step(*step)
    await witness.end(drain=drain)
    return witness


@given(policy=policies, schedule=st.lists(steps, max_size=40), drain=st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_request_is_lost_or_run_twice_or_answered_with_another_s_result(
    make_rig: Rig, policy: dict[str, Any], schedule: Sequence[tuple[Any, ...]], *, drain: bool
) -> None:
    max_batch_size, preferred = policy["sizes"]
    rest = {name: value for name, value in policy.items() if name != "sizes"}

    async def main() -> None:
        bench = make_rig(max_batch_size=max_batch_size, preferred_batch_sizes=preferred, **rest)
        await drive(bench, schedule, drain=drain)

    asyncio.run(main())


@given(policy=ordered_policies, schedule=st.lists(steps, max_size=40), drain=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_tenant_s_answers_leave_in_the_order_of_its_requests_where_that_is_asked(
    make_rig: Rig, policy: dict[str, Any], schedule: Sequence[tuple[Any, ...]], *, drain: bool
) -> None:
    async def main() -> None:
        witness = await drive(make_rig(**policy), schedule, drain=drain)
        for numbers in witness.answers.values():
            kept = [number for number in numbers if not witness.items[number].cancelled()]
            assert kept == sorted(kept)

    asyncio.run(main())
