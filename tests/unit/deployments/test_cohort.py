import random

import pytest

from trygon.deployments.cohort import HOLD_FRACTION, MAX_HOLD_NS, MIN_HOLD_NS, CohortHold, ExecutionTime

MS = 1_000_000


def halves(
    hold: CohortHold,
    *,
    rows: int = 4,
    returns: int = 4,
    cycles: int = 10,
    execution_ms: int = 20,
    return_ns: int = MS // 2,
    start_ns: int = MS,
) -> int:
    """Let two cohorts alternate; `returns` of each come back within `return_ns`. Return the end's time."""
    now_ns = start_ns
    for _ in range(cycles):
        now_ns += execution_ms * MS
        hold.answered(rows, rows, "s", now_ns, execution_ms * MS)
        for _ in range(returns):
            hold.arrived(1, "s", now_ns + return_ns)
    now_ns += execution_ms * MS
    hold.answered(rows, rows, "s", now_ns, execution_ms * MS)
    return now_ns


def test_callers_who_return_are_held_for() -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold)
    assert hold.return_rate > 0.5
    assert hold.until("s", 4, 32, now_ns) == now_ns + MIN_HOLD_NS


def test_the_hold_is_as_long_as_callers_need_to_come_back() -> None:
    hold = CohortHold(enabled=True)
    assert hold.window_ns == 0
    now_ns = halves(hold, returns=0, cycles=1)
    assert hold.window_ns == HOLD_FRACTION * 20 * MS
    now_ns = halves(hold, return_ns=4 * MS, cycles=30, start_ns=now_ns)
    assert hold.window_ns == pytest.approx(6 * MS, rel=0.1)
    assert hold.until("s", 4, 32, now_ns) == now_ns + hold.window_ns
    halves(hold, return_ns=7 * MS, cycles=30, start_ns=now_ns)
    assert hold.window_ns == pytest.approx(10.5 * MS, rel=0.1)


def test_nobody_is_held_before_anything_is_known() -> None:
    hold = CohortHold(enabled=True)
    hold.answered(8, 8, "s", 21 * MS, 20 * MS)
    assert hold.until("s", 1, 32, 21 * MS) == 0


def test_the_hold_is_over_when_all_are_back() -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold)
    for _ in range(3):
        hold.arrived(1, "s", now_ns)
    assert hold.until("s", 7, 32, now_ns) > 0
    hold.arrived(1, "s", now_ns)
    assert hold.until("s", 8, 32, now_ns) == 0


def test_the_hold_is_over_when_its_time_is() -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold)
    assert hold.until("s", 4, 32, now_ns + 2 * MS) == 0


@pytest.mark.parametrize(("shape", "waiting"), [("other", 4), ("s", 32)])
def test_nobody_is_held_for_those_who_could_not_join(shape: str, waiting: int) -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold)
    assert hold.until(shape, waiting, 32, now_ns) == 0


def test_a_few_who_return_do_not_hold_up_many() -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold, return_ns=4 * MS, cycles=30)
    assert hold.until("s", 4, 64, now_ns) > 0
    assert hold.until("s", 60, 64, now_ns) == 0


def test_callers_who_stay_away_end_the_holds() -> None:
    hold = CohortHold(enabled=True)
    halves(hold)
    now_ns = halves(hold, returns=0, cycles=20)
    assert hold.return_rate < 0.25
    assert hold.until("s", 4, 32, now_ns) == 0


def test_open_loop_traffic_does_not_look_like_returning_callers() -> None:
    hold = CohortHold(enabled=True)
    rng = random.Random(1)  # noqa: S311 - a repeatable schedule, no secret
    now_ns, waiting = MS, 0
    for _ in range(300):
        end_ns, rows = now_ns + 20 * MS, max(1, waiting)
        waiting, arrival_ns = 0, now_ns + rng.expovariate(1 / MS)
        while arrival_ns < end_ns:
            hold.arrived(1, "s", int(arrival_ns))
            waiting += 1
            arrival_ns += rng.expovariate(1 / MS)
        now_ns = end_ns
        hold.answered(rows, rows, "s", now_ns, 20 * MS)
        assert hold.until("s", max(1, waiting), 64, now_ns) == 0
    assert hold.return_rate < 0.1


def test_a_model_whose_time_is_proportional_to_its_rows_is_not_held() -> None:
    hold = CohortHold(enabled=True)
    now_ns = MS
    for rows in (4, 8) * 20:
        now_ns += rows * 20 * MS
        hold.answered(rows, rows, "s", now_ns, rows * 20 * MS)
        for _ in range(rows):
            hold.arrived(1, "s", now_ns + MS)
    now_ns += 80 * MS
    hold.answered(4, 4, "s", now_ns, 80 * MS)
    assert hold.return_rate > 0.5
    assert hold.until("s", 4, 32, now_ns) == 0


def test_models_faster_than_timers_are_not_held() -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold, execution_ms=1)
    assert hold.window_ns == 0
    assert hold.until("s", 4, 32, now_ns) == 0


def test_the_longest_hold_is_bounded() -> None:
    hold = CohortHold(enabled=True)
    hold.answered(4, 4, "s", 60_000 * MS, 60_000 * MS)
    assert hold.window_ns == MAX_HOLD_NS


def test_what_is_switched_off_never_holds() -> None:
    hold = CohortHold(enabled=False)
    now_ns = halves(hold)
    assert hold.until("s", 4, 32, now_ns) == 0


def test_cohorts_of_several_instances_are_expected_together() -> None:
    hold = CohortHold(enabled=True)
    now_ns = halves(hold)
    later_ns = now_ns + MS // 4
    hold.answered(4, 4, "s", later_ns, 20 * MS)
    for _ in range(7):
        hold.arrived(1, "s", later_ns)
    assert hold.until("s", 8, 32, later_ns) == later_ns + hold.window_ns
    hold.arrived(1, "s", later_ns)
    assert hold.until("s", 8, 32, later_ns) == 0


@pytest.mark.parametrize(("fixed_ms", "row_ms"), [(10, 1), (0, 20), (20, 0)])
def test_the_fixed_part_of_the_execution_time_is_found(fixed_ms: int, row_ms: int) -> None:
    execution = ExecutionTime()
    for rows in (1, 8, 3, 5) * 10:
        execution.add(rows, (fixed_ms + row_ms * rows) * MS)
    assert execution.fixed_ns == pytest.approx(fixed_ms * MS, abs=0.1 * MS)


def test_batches_of_one_size_do_not_tell_the_parts_apart() -> None:
    execution = ExecutionTime()
    assert execution.fixed_ns == 0
    for _ in range(10):
        execution.add(4, 20 * MS)
    assert execution.fixed_ns == pytest.approx(20 * MS)
