"""A window counts what falls inside it, and a measurement summarises that."""

import pytest
from field.measurement import measurement
from field.window import MAX_ERRORS, MIN_ANSWERS, STRETCH, Timing, Window


class Clock:
    """A clock and CPU meter that stand still."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 7.0

    def window(self, warmup_s: float = 1, window_s: float = 2) -> Window:
        return Window(Timing(warmup_s, window_s), [], lambda: self.now, lambda _: self.cpu)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def answer(window: Window, clock: Clock, times: int) -> None:
    for _ in range(times):
        window.answered(clock.now, clock.now - 0.25)


def test_percentiles_are_those_of_all_answers() -> None:
    got = measurement([number / 1000 for number in range(1, 101)], seconds=2.0, cpu_s=0.5, errors=0, first_error="")
    assert (got.requests, got.requests_per_s, got.cpu_ms) == (100, 50.0, 5.0)
    assert got.p50_ms == pytest.approx(50.5)
    assert got.p99_ms == pytest.approx(99.01)


def test_a_window_without_answers_is_an_error() -> None:
    got = measurement([], seconds=2.0, cpu_s=0.5, errors=0, first_error="")
    assert got.errors == 1
    assert got.first_error == "no answer in the whole window"


def test_the_warm_up_is_not_counted_but_its_errors_are(clock: Clock) -> None:
    window = clock.window()
    assert window.open()
    answer(window, clock, 10)
    window.error("early")
    clock.now = 101.0
    assert window.open()
    answer(window, clock, 6)
    clock.now, clock.cpu = 103.0, 7.6
    assert not window.open()
    got = window.result()
    assert (got.requests, got.seconds, got.requests_per_s) == (6, 2.0, 3.0)
    assert got.cpu_ms == pytest.approx(100.0)
    assert (got.p50_ms, got.errors, got.first_error) == (250.0, 1, "early")


def test_answers_and_cpu_time_after_the_end_are_not_counted(clock: Clock) -> None:
    window = clock.window(warmup_s=0)
    assert window.open()
    answer(window, clock, 5)
    clock.now = 102.0
    assert not window.open()
    clock.now, clock.cpu = 110.0, 99.0
    answer(window, clock, 5)
    got = window.result()
    assert (got.requests, got.seconds, got.cpu_ms) == (5, 2.0, 0.0)


def test_a_window_with_few_answers_goes_on_for_a_while(clock: Clock) -> None:
    window = clock.window(warmup_s=0, window_s=1)
    assert window.open()
    clock.now = 102.0
    assert window.open()
    answer(window, clock, MIN_ANSWERS)
    assert not window.open()
    assert window.result().requests_per_s == MIN_ANSWERS / 2
    silent = clock.window(warmup_s=0, window_s=1)
    assert silent.open()
    clock.now += STRETCH
    assert not silent.open()


def test_a_cell_is_given_up_after_many_errors(clock: Clock) -> None:
    window = clock.window()
    for number in range(MAX_ERRORS):
        assert window.open()
        window.error(f"error {number}")
    assert not window.open()
    assert window.result().first_error == "error 0"
