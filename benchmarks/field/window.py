"""The time of a measurement: warm-up, window, drain; collects what happens inside the window."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from field.measurement import Measurement, measurement
from field.process import cpu_seconds

MAX_ERRORS = 50
"""Errors after which a cell is given up."""
MIN_ANSWERS = 5
"""A window goes on until it has so many answers, at most `STRETCH` times its length."""
STRETCH = 5
DRAIN_S = 15.0
"""Longest wait for answers that are still out when the window ends: they must not weigh on the next cell."""
SILENCE_S = 30.0
"""Time without any answer after which a cell is given up."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of warm-up and of the measured window."""

    warmup_s: float
    window_s: float


class Window:
    """Counts the answers that arrive between the end of the warm-up and the end of the window."""

    def __init__(
        self,
        timing: Timing,
        pids: Sequence[int],
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[Sequence[int]], float] = cpu_seconds,
    ) -> None:
        self._pids = pids
        self._clock = clock
        self._cpu = cpu
        self._cpu_start_s = self._cpu_used_s = self._seconds = 0.0
        self._started = self._ended = False
        self._start_s = clock() + timing.warmup_s
        self._end_s = self._start_s + timing.window_s
        self._last_s = self._start_s + timing.window_s * STRETCH
        self.latencies_s: list[float] = []
        self.errors = 0
        self.first_error = ""

    def open(self) -> bool:
        """Say whether the load goes on; reads the CPU time where the window begins and ends."""
        now = self._clock()
        if self._ended:
            return False
        if not self._started and now >= self._start_s:
            self._started = True
            self._start_s = now
            self._cpu_start_s = self._cpu(self._pids)
            self.latencies_s.clear()
        enough = len(self.latencies_s) >= MIN_ANSWERS
        if self.errors >= MAX_ERRORS or (self._started and now >= (self._end_s if enough else self._last_s)):
            self.end()
        return not self._ended

    def end(self) -> None:
        """End the window now."""
        if not self._ended:
            self._ended = True
            self._seconds = max(self._clock() - self._start_s, 1e-9)
            self._cpu_used_s = self._cpu(self._pids) - self._cpu_start_s if self._started else 0

    def answered(self, now: float, since: float) -> None:
        """Count an answer, unless the window has ended."""
        if not self._ended:
            self.latencies_s.append(now - since)

    def error(self, text: str) -> None:
        """Count an error, in warm-up and drain too."""
        self.errors += 1
        self.first_error = self.first_error or text

    def result(self) -> Measurement:
        """Return what happened in the window."""
        self.end()
        return measurement(self.latencies_s, self._seconds, self._cpu_used_s, self.errors, self.first_error)
