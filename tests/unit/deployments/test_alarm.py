from collections.abc import Callable

from trygon.deployments.alarm import Alarm


class Timers:
    """Timers that ring when the test says so."""

    def __init__(self) -> None:
        self.live: dict[object, tuple[float, Callable[[], None]]] = {}

    class Handle:
        def __init__(self, timers: "Timers") -> None:
            self.timers = timers

        def cancel(self) -> None:
            self.timers.live.pop(self)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> "Timers.Handle":
        handle = self.Handle(self)
        self.live[handle] = (delay_s, callback)
        return handle

    @property
    def delays_s(self) -> list[float]:
        return [delay_s for delay_s, _ in self.live.values()]

    def ring(self) -> None:
        _, callback = self.live.pop(next(iter(self.live)))
        callback()


def test_only_the_earliest_time_rings() -> None:
    timers, rung = Timers(), []
    alarm = Alarm(lambda: 1_000_000_000, timers.call_later, lambda: rung.append(True))
    alarm.by(3_000_000_000)
    alarm.by(5_000_000_000)
    assert timers.delays_s == [2]
    alarm.by(1_500_000_000)
    assert timers.delays_s == [0.5]
    timers.ring()
    assert rung == [True]
    alarm.by(500_000_000)
    assert timers.delays_s == [0]


def test_a_cancelled_alarm_does_not_ring() -> None:
    timers = Timers()
    alarm = Alarm(lambda: 0, timers.call_later, lambda: None)
    alarm.cancel()
    alarm.by(1)
    alarm.cancel()
    assert timers.live == {}


def test_times_are_rounded_up_to_milliseconds() -> None:
    timers = Timers()
    Alarm(lambda: 0, timers.call_later, lambda: None).by(1_000_001)
    assert timers.delays_s == [0.002]
