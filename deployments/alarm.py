"""One wake-up at the earliest time that was asked for."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class TimerHandle(Protocol):
    """What a timer gives back."""

    def cancel(self) -> None:
        """Make sure that the timer does not ring."""
        ...


CallLater = Callable[[float, Callable[[], None]], TimerHandle]
"""Calls back after so many seconds, as an event loop's `call_later` does."""


def call_later(delay_s: float, callback: Callable[[], None]) -> TimerHandle:
    """Call back on the running event loop."""
    return asyncio.get_running_loop().call_later(delay_s, callback)


class Alarm:
    """At most one timer, to the millisecond.

    Whoever is woken asks again for what is still to come, so a late or needless ring is safe.
    """

    __slots__ = ("_call_later", "_callback", "_clock_ns", "_timer", "_when_ns")

    def __init__(self, clock_ns: Callable[[], int], call_later: CallLater, callback: Callable[[], None]) -> None:
        self._clock_ns = clock_ns
        self._call_later = call_later
        self._callback = callback
        self._timer: TimerHandle | None = None
        self._when_ns = 0

    def by(self, when_ns: int) -> None:
        """Ring at `when_ns` of the clock, unless it rings earlier anyway."""
        if self._timer is not None:
            if self._when_ns <= when_ns:
                return
            self._timer.cancel()
        self._when_ns = when_ns
        # Whole milliseconds, rounded up: asyncio on epoll rounds up anyway, and uvloop would round down and ring early,
        # again and again until the time has come.
        delay_ms = -(-max(0, when_ns - self._clock_ns()) // 1_000_000)
        self._timer = self._call_later(delay_ms / 1e3, self._ring)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._callback()
