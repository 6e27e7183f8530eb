"""What one cell gave: rates, latencies, errors and CPU time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Measurement:
    """One cell of one round. Latencies in ms; `cpu_ms` is the server's CPU time per request."""

    requests: int
    seconds: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    first_error: str
    cpu_ms: float


def measurement(
    latencies_s: Sequence[float], seconds: float, cpu_s: float, errors: int, first_error: str
) -> Measurement:
    """Summarise a window of `seconds`; without a single answer it counts as an error."""
    count = len(latencies_s)
    if not count:
        return Measurement(0, seconds, 0, 0, 0, errors or 1, first_error or "no answer in the whole window", 0)
    p50, p99 = np.percentile(latencies_s, (50, 99)) * 1000
    return Measurement(
        requests=count,
        seconds=round(seconds, 3),
        requests_per_s=round(count / seconds, 1),
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
        errors=errors,
        first_error=first_error,
        cpu_ms=round(cpu_s / count * 1000, 4),
    )
