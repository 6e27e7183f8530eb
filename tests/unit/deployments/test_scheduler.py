import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from trygon.deployments.batching import BatchingPolicy, QueuePolicy, TimeoutAction
from trygon.deployments.item import Item
from trygon.deployments.scheduler import Scheduler
from trygon.errors import ErrorCode, InferenceError

Rig = Callable[..., Any]


def code(item: Item) -> ErrorCode:
    error = item.exception()
    assert isinstance(error, InferenceError)
    return error.code


async def test_a_lone_request_on_an_idle_model_starts_without_a_timer(make_rig: Rig) -> None:
    bench = make_rig()
    (item,) = bench.submit("a")
    await asyncio.sleep(0)
    assert bench.batches == [["a"]]
    assert bench.timers == []
    await bench.finish()
    assert await item == "a"


async def test_requests_that_arrive_in_one_turn_travel_together(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit(*range(11))
    await bench.turn()
    assert bench.batches == [list(range(8))]


async def test_requests_gather_while_the_instance_is_busy_and_leave_when_it_is_free(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit("first")
    await bench.turn()
    bench.submit(*range(10))
    await bench.turn()
    assert bench.batches == [["first"]]
    await bench.finish()
    await bench.finish()
    assert bench.batches == [["first"], [0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]


async def test_each_instance_takes_a_batch(make_rig: Rig) -> None:
    bench = make_rig(instances=2, max_batch_size=2)
    bench.submit(*range(6))
    await bench.turn()
    assert bench.batches == [[0, 1], [2, 3]]
    await bench.finish(execution=1)
    assert bench.batches[2:] == [[4, 5]]


async def test_rows_count_and_not_requests(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit("a", rows=5)
    bench.submit("b", rows=3)
    bench.submit("c", rows=1)
    await bench.turn()
    assert bench.batches == [["a", "b"]]


async def test_more_rows_than_a_batch_holds_are_refused(make_rig: Rig) -> None:
    bench = make_rig()
    (item,) = bench.submit("a", rows=9)
    assert code(item) is ErrorCode.TENSOR_BATCH_TOO_LARGE
    assert item.exception().context == {"rows": 9, "max_batch_size": 8}


async def test_shapes_never_share_a_batch_and_do_not_cut_each_other_short(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit("first")
    await bench.turn()
    for index in range(3):
        bench.submit(f"a{index}", shape_key=(1,))
        bench.submit(f"b{index}", shape_key=(2,))
    await bench.finish()
    await bench.finish()
    assert bench.batches[1:] == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


@pytest.mark.parametrize("policy", [{"max_batch_size": 0}, {"dynamic": False}])
async def test_without_batching_each_request_runs_alone(make_rig: Rig, policy: dict[str, Any]) -> None:
    bench = make_rig(**policy)
    bench.submit("a", "b", rows=4)
    await bench.turn()
    await bench.finish()
    assert bench.batches == [["a"], ["b"]]


async def test_items_carry_the_times_of_queueing_and_start(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit("first")
    await bench.turn()
    (item,) = bench.submit("second")
    assert item.started_at_ns == 0
    await bench.advance(7)
    await bench.finish()
    assert item.started_at_ns - item.enqueued_at_ns == 7_000_000


async def test_a_member_s_error_is_its_own(make_rig: Rig) -> None:
    bench = make_rig()
    good, bad, stop = bench.submit("good", "bad", "stop")
    await bench.turn()
    await bench.finish(["fine", ValueError("bad row"), StopIteration()])
    assert good.result() == "fine"
    assert str(bad.exception()) == "bad row"
    assert code(stop) is ErrorCode.SYSTEM_INTERNAL


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (InferenceError(ErrorCode.RUNNER_INPUT_REJECTED, "no", row=3), ErrorCode.RUNNER_INPUT_REJECTED),
        (ValueError("broken"), ErrorCode.SYSTEM_INTERNAL),
        (["too", "many", "results"], ErrorCode.SYSTEM_INTERNAL),
    ],
)
async def test_a_failed_execution_fails_each_member_with_an_error_of_its_own(
    make_rig: Rig, failure: Any, expected: ErrorCode
) -> None:
    bench = make_rig()
    first, second = bench.submit("a", "b")
    await bench.turn()
    await bench.finish(failure)
    assert code(first) is code(second) is expected
    assert first.exception() is not second.exception()
    bench.submit("c")
    await bench.turn()
    assert bench.batches[-1] == ["c"]


async def test_a_cancelled_execution_is_told_as_a_runner_that_died(make_rig: Rig) -> None:
    bench = make_rig()
    (item,) = bench.submit("a")
    await bench.turn()
    bench.executions.pop()[1].cancel()
    await bench.turn()
    assert code(item) is ErrorCode.RUNNER_DIED


async def test_a_run_that_raises_before_it_starts_fails_its_members(make_rig: Rig) -> None:
    bench = make_rig()

    def refuse(items: Any) -> Any:
        raise RuntimeError(f"no room for {len(items)}")

    scheduler = Scheduler(bench.scheduler.policy, refuse)
    item = scheduler.submit("a")
    with pytest.raises(InferenceError, match="no room for 1"):
        await item
    await scheduler.close()


async def test_who_leaves_the_queue_does_not_run(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit("first")
    await bench.turn()
    stays, leaves, stays_too = bench.submit("a", "b", "c")
    assert leaves.cancel()
    assert bench.scheduler.snapshot().waiting_requests == 2
    await bench.finish()
    await bench.finish()
    assert bench.batches[1:] == [["a", "c"]]
    assert (stays.result(), stays_too.result()) == ("a", "c")


async def test_cancelling_the_task_that_waits_is_leaving(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit("first")
    await bench.turn()

    async def ask() -> Any:
        return await bench.scheduler.submit("a")

    task = asyncio.create_task(ask())
    await bench.turn()
    task.cancel()
    await bench.turn()
    assert task.cancelled()
    assert bench.scheduler.snapshot().waiting_requests == 0


async def test_who_leaves_while_running_does_not_disturb_the_others(make_rig: Rig) -> None:
    bench = make_rig()
    leaves, stays = bench.submit("a", "b")
    await bench.turn()
    leaves.cancel()
    assert not leaves.cancel()
    await bench.finish()
    assert stays.result() == "b"
    assert leaves.cancelled()


async def test_executions_do_not_run_in_the_context_of_a_request() -> None:
    caller = contextvars.ContextVar("caller", default="nobody")
    seen = []

    async def run(items: Any) -> Any:
        seen.append(caller.get())
        return [None] * len(items)

    caller.set("me")
    scheduler = Scheduler(BatchingPolicy(max_batch_size=8, default_queue_policy=QueuePolicy(max_queue_size=1)), run)
    first, second = scheduler.submit("a"), scheduler.submit("b")
    await second
    assert first.done()
    await scheduler.close()
    assert set(seen) == {"nobody"}


async def test_the_largest_preferred_size_runs_first(make_rig: Rig) -> None:
    bench = make_rig(preferred_batch_sizes=(2, 4))
    bench.submit(*range(7))
    for _ in range(3):
        await bench.turn()
        await bench.finish()
    assert bench.batches == [[0, 1, 2, 3], [4, 5], [6]]


async def test_rows_that_would_lead_beyond_every_preferred_size_wait_for_the_next_batch(make_rig: Rig) -> None:
    bench = make_rig(preferred_batch_sizes=(4,))
    bench.submit("a", "b", rows=3)
    await bench.turn()
    assert bench.batches == [["a"]]


async def test_the_queue_delay_waits_for_a_full_batch(make_rig: Rig) -> None:
    bench = make_rig(max_queue_delay_s=0.01)
    bench.submit(*range(5))
    await bench.advance(9)
    assert bench.batches == []
    bench.submit(5, 6)
    await bench.turn()
    assert bench.batches == []
    bench.submit(7, 8)
    await bench.turn()
    assert bench.batches == [list(range(8))]


async def test_the_queue_delay_ends_with_what_there_is(make_rig: Rig) -> None:
    bench = make_rig(max_queue_delay_s=0.01)
    bench.submit("a")
    await bench.advance(5)
    bench.submit("b")
    await bench.advance(4.9)
    assert bench.batches == []
    await bench.advance(0.2)
    assert bench.batches == [["a", "b"]]


async def test_a_preferred_size_does_not_wait_for_the_delay(make_rig: Rig) -> None:
    bench = make_rig(preferred_batch_sizes=(2,), max_queue_delay_s=0.01)
    bench.submit("a", "b", "c")
    await bench.turn()
    assert bench.batches == [["a", "b"]]
    await bench.finish()
    assert len(bench.batches) == 1
    await bench.advance(10)
    assert bench.batches[1:] == [["c"]]


async def test_after_the_delay_preferred_sizes_do_not_matter(make_rig: Rig) -> None:
    bench = make_rig(preferred_batch_sizes=(2,), max_queue_delay_s=0.01)
    bench.submit("first", "second")
    await bench.turn()
    bench.submit("a", "b", "c")
    await bench.advance(20)
    await bench.finish()
    assert bench.batches[1:] == [["a", "b", "c"]]


async def test_the_delay_ends_when_what_follows_cannot_join(make_rig: Rig) -> None:
    bench = make_rig(max_queue_delay_s=0.01)
    bench.submit("a", shape_key=1)
    await bench.turn()
    bench.submit("b", shape_key=2)
    await bench.turn()
    assert bench.batches == [["a"]]
    large = make_rig(max_queue_delay_s=0.01)
    large.submit("a", "b", rows=5)
    await large.turn()
    assert large.batches == [["a"]]


async def test_higher_priorities_overtake_and_levels_share_a_batch(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=3, priority_levels=3, default_priority_level=2)
    bench.submit("first")
    await bench.turn()
    bench.submit("low", priority=3)
    bench.submit("default", "unknown level", priority=99)
    bench.submit("default too")
    bench.submit("high", priority=1)
    await bench.finish()
    await bench.finish()
    assert bench.batches[1:] == [["high", "default", "unknown level"], ["default too", "low"]]


async def test_a_full_queue_refuses_but_not_what_a_free_instance_takes(make_rig: Rig) -> None:
    bench = make_rig(default_queue_policy=QueuePolicy(max_queue_size=2), instances=2, max_batch_size=2)
    items = bench.submit(*range(8))
    await bench.turn()
    assert bench.batches == [[0, 1], [2, 3]]
    assert [item.done() for item in items] == [False] * 6 + [True] * 2
    assert code(items[6]) is ErrorCode.RUNNER_QUEUE_FULL
    assert str(items[6].exception()) == "Exceeds maximum queue size"
    items[4].cancel()
    assert not bench.submit("room again")[0].done()


async def test_a_request_that_waited_too_long_is_rejected_at_its_deadline(make_rig: Rig) -> None:
    bench = make_rig(default_queue_policy=QueuePolicy(default_timeout_s=0.005))
    bench.submit("first")
    await bench.turn()
    (item,) = bench.submit("late")
    await bench.advance(4.9)
    assert not item.done()
    await bench.advance(0.1)
    assert code(item) is ErrorCode.REQUEST_QUEUE_TIMEOUT
    assert str(item.exception()) == "Request timeout expired"
    await bench.finish()
    assert bench.batches == [["first"]]


async def test_a_request_that_started_in_time_is_not_rejected(make_rig: Rig) -> None:
    bench = make_rig(default_queue_policy=QueuePolicy(default_timeout_s=0.005))
    (item,) = bench.submit("a")
    await bench.advance(50)
    await bench.finish()
    assert item.result() == "a"


async def test_a_timed_out_request_may_instead_go_behind_all_others(make_rig: Rig) -> None:
    delay = QueuePolicy(default_timeout_s=0.005, timeout_action=TimeoutAction.DELAY)
    bench = make_rig(max_batch_size=1, default_queue_policy=delay)
    bench.submit("first")
    await bench.turn()
    bench.submit("late")
    await bench.advance(6)
    bench.submit("fresh")
    for _ in range(3):
        await bench.finish()
    assert bench.batches == [["first"], ["fresh"], ["late"]]


@pytest.mark.parametrize(
    ("allowed", "default_s", "asked_s", "waits_ms"),
    [(True, 0.01, 0.004, 4), (True, 0.01, 0.05, 10), (True, 0, 0.004, 4), (False, 0.01, 0.004, 10)],
)
async def test_a_request_may_ask_for_less_time_where_that_is_allowed(
    make_rig: Rig, *, allowed: bool, default_s: float, asked_s: float, waits_ms: float
) -> None:
    bench = make_rig(default_queue_policy=QueuePolicy(default_timeout_s=default_s, allow_timeout_override=allowed))
    bench.submit("first")
    await bench.turn()
    await bench.finish()
    bench.submit("busy")
    await bench.turn()
    (item,) = bench.submit("a", timeout_s=asked_s)
    await bench.advance(waits_ms - 0.1)
    assert not item.done()
    await bench.advance(0.1)
    assert code(item) is ErrorCode.REQUEST_QUEUE_TIMEOUT


@pytest.mark.parametrize("timeout_s", [-1.0, 0.0, float("nan"), float("inf"), 1e300])
async def test_a_timeout_that_is_no_time_is_none(make_rig: Rig, timeout_s: float) -> None:
    bench = make_rig(default_queue_policy=QueuePolicy(allow_timeout_override=True))
    bench.submit("first")
    await bench.turn()
    bench.submit("a", timeout_s=timeout_s)
    await bench.advance(1e6)
    await bench.finish()
    assert bench.batches == [["first"], ["a"]]


async def test_deadlines_survive_a_wait_for_the_queue_delay(make_rig: Rig) -> None:
    bench = make_rig(max_queue_delay_s=0.01, default_queue_policy=QueuePolicy(default_timeout_s=0.004))
    (item,) = bench.submit("a")
    await bench.advance(5)
    assert code(item) is ErrorCode.REQUEST_QUEUE_TIMEOUT
    assert bench.batches == []


async def test_answers_keep_the_order_of_requests_where_that_is_asked(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=1, instances=2, preserve_ordering=True)
    first, second = bench.submit("a", "b")
    (other,) = bench.submit("c", tenant="other")
    await bench.turn()
    await bench.finish(execution=1)
    assert not second.done()
    await bench.finish(execution=1)
    assert other.done(), "another tenant's order is its own"
    await bench.finish()
    assert first.done()
    assert second.result() == "b"


async def test_who_leaves_does_not_block_the_order(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=1, instances=2, preserve_ordering=True)
    first, second = bench.submit("a", "b")
    await bench.turn()
    await bench.finish(execution=1)
    first.cancel()
    assert second.result() == "b"
    await bench.finish()


async def test_who_leaves_while_its_answer_is_kept_back_is_forgotten(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=1, instances=2, preserve_ordering=True)
    first, second = bench.submit("a", "b")
    await bench.turn()
    await bench.finish(execution=1)
    second.cancel()
    await bench.finish()
    assert first.result() == "a"
    assert second.cancelled()


async def test_a_closed_scheduler_takes_nothing_and_fails_what_waits(make_rig: Rig) -> None:
    bench = make_rig()
    (runs,) = bench.submit("runs")
    await bench.turn()
    (waits,) = bench.submit("waits")
    closing = asyncio.create_task(bench.scheduler.close())
    await bench.turn()
    assert code(waits) is ErrorCode.SYSTEM_SHUTTING_DOWN
    assert code(bench.submit("late")[0]) is ErrorCode.SYSTEM_SHUTTING_DOWN
    assert not closing.done()
    await bench.finish()
    await closing
    assert runs.result() == "runs"


async def test_a_drain_runs_what_waits_without_delay(make_rig: Rig) -> None:
    bench = make_rig(max_queue_delay_s=10)
    (item,) = bench.submit("a")
    await bench.turn()
    closing = asyncio.create_task(bench.scheduler.close(drain=True))
    await bench.turn()
    assert bench.batches == [["a"]]
    await bench.finish()
    await closing
    assert item.result() == "a"


async def test_a_drain_that_takes_too_long_can_be_given_up(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=1)
    bench.submit("first")
    await bench.turn()
    (waits,) = bench.submit("waits")
    draining = asyncio.create_task(bench.scheduler.close(drain=True))
    await bench.turn()
    closing = asyncio.create_task(bench.scheduler.close())
    await bench.turn()
    assert code(waits) is ErrorCode.SYSTEM_SHUTTING_DOWN
    await bench.finish()
    await asyncio.gather(draining, closing)


async def test_a_drain_ends_when_the_last_who_waits_leaves(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=1)
    bench.submit("first")
    await bench.turn()
    (waits,) = bench.submit("waits")
    draining = asyncio.create_task(bench.scheduler.close(drain=True))
    await bench.turn()
    waits.cancel()
    await bench.finish()
    await draining


async def test_a_polite_tenant_rides_in_the_next_batch_beside_a_flood(make_rig: Rig) -> None:
    bench = make_rig()
    bench.submit(*range(100), tenant="flood")
    await bench.turn()
    (polite,) = bench.submit("polite", tenant="polite")
    await bench.finish()
    await bench.finish()
    assert polite.done()


async def warm_up(bench: Any) -> None:
    """Let 8 callers in a closed loop alternate in two halves until the hold has learned that they return."""
    bench.submit(*range(4))
    await bench.turn()
    bench.submit(*range(4))
    for _ in range(8):
        answered = len(bench.executions[0][0])
        await bench.cycle()
        await bench.advance(1)
        bench.submit(*range(answered))
        await bench.turn()


async def test_the_hold_merges_two_halves_that_alternate(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=32, cohort_hold=True)
    await warm_up(bench)
    assert len(bench.batches[0]) == 4
    assert len(bench.batches[-1]) == 8
    snapshot = bench.scheduler.snapshot()
    assert snapshot.holds > 0
    assert snapshot.held_s > 0
    assert snapshot.return_rate > 0.25
    assert snapshot.hold_window_s == pytest.approx(0.0015, rel=0.1)


async def test_the_hold_ends_when_all_are_back_and_not_before(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=32, cohort_hold=True)
    await warm_up(bench)
    await bench.cycle()
    released = len(bench.batches)
    bench.submit(*range(7))
    await bench.turn()
    assert len(bench.batches) == released
    assert bench.scheduler.snapshot().holding
    bench.submit("last")
    await bench.turn()
    assert len(bench.batches[released]) == 8
    assert not bench.scheduler.snapshot().holding


async def test_the_hold_ends_after_a_tenth_of_the_execution(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=32, cohort_hold=True)
    await warm_up(bench)
    await bench.cycle()
    released = len(bench.batches)
    bench.submit("alone")
    await bench.advance(1.9)
    assert len(bench.batches) == released
    await bench.advance(1.1)
    assert bench.batches[released] == ["alone"]


async def test_a_full_batch_is_never_held(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=8, cohort_hold=True)
    await warm_up(bench)
    bench.submit(*range(8))
    released = len(bench.batches)
    await bench.cycle()
    assert len(bench.batches) == released + 1


async def test_a_hold_ends_when_those_who_wait_leave(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=32, cohort_hold=True)
    await warm_up(bench)
    await bench.cycle()
    (item,) = bench.submit("alone")
    await bench.turn()
    item.cancel()
    await bench.advance(5)
    assert not bench.scheduler.snapshot().holding


async def test_with_an_idle_instance_nobody_is_held(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=32, instances=2, cohort_hold=True)
    await warm_up(bench)
    while bench.executions:
        await bench.cycle()
    released = len(bench.batches)
    bench.submit("alone")
    await bench.turn()
    assert bench.batches[released:] == [["alone"]]


async def test_a_setting_turns_the_hold_off(make_rig: Rig) -> None:
    bench = make_rig(max_batch_size=32, cohort_hold=False)
    await warm_up(bench)
    assert {len(batch) for batch in bench.batches} == {4}
    assert not bench.scheduler.snapshot().hold_enabled


async def test_the_real_clock_and_loop_serve_as_defaults() -> None:
    async def run(items: Any) -> Any:
        return [item.payload for item in items]

    scheduler = Scheduler(BatchingPolicy(max_batch_size=8, max_queue_delay_s=0.001), run)
    assert await asyncio.gather(*(scheduler.submit(index) for index in range(3))) == [0, 1, 2]
    await scheduler.close()
