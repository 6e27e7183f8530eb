"""Simulates how requests become batches: the real scheduler on a virtual clock, greedy filling against cohort hold.

The event loop's clock jumps to its next timer instead of waiting for it, so that a minute takes about a second and
every run with the same seed gives the same figures. The device takes `fixed + rows * per row`, whatever else happens;
callers in a closed loop ask again after their network's round trip.

    python benchmarks/scheduler_simulation.py [--seconds 20] [--seed 1]
"""

import argparse
import asyncio
import random
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.item import Item
from trygon.deployments.scheduler import Scheduler

ROUND_TRIP_S = (0.0003, 0.002)
MAX_BATCH_SIZE = 32


class _TimeTravel(selectors.SelectSelector):
    """A selector that moves the clock on instead of waiting."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is left that could wake the simulation")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self._travel = _TimeTravel()
        super().__init__(self._travel)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._travel.now_s

    def time_ns(self) -> int:
        """Nanoseconds since the loop was made."""
        return round(self._travel.now_s * 1e9)


@dataclass(frozen=True)
class Device:
    """What an execution takes."""

    fixed_s: float = 0.02
    per_row_s: float = 0.0
    instances: int = 1


@dataclass
class Outcome:
    """What a simulated run saw."""

    seconds: float
    latencies_s: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    return_rate: float = 0.0
    held_s: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latency in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[int(share * (len(ordered) - 1))] * 1e3


Load = Callable[[Scheduler, Outcome, random.Random, float], Coroutine[Any, Any, None]]


def closed_loop(callers: int, round_trip_s: tuple[float, float] = ROUND_TRIP_S) -> Load:
    """Return a load of callers who ask again as soon as they have their answer."""

    async def load(scheduler: Scheduler, outcome: Outcome, rng: random.Random, seconds: float) -> None:
        loop = asyncio.get_running_loop()

        async def caller() -> None:
            await asyncio.sleep(rng.random() * 0.02)
            while loop.time() < seconds:
                began_s = loop.time()
                await scheduler.submit(None)
                outcome.latencies_s.append(loop.time() - began_s)
                await asyncio.sleep(rng.uniform(*round_trip_s))

        await asyncio.gather(*(caller() for _ in range(callers)))

    return load


def poisson(per_second: float) -> Load:
    """Return a load that pays no attention to answers."""

    async def load(scheduler: Scheduler, outcome: Outcome, rng: random.Random, seconds: float) -> None:
        loop = asyncio.get_running_loop()

        async def request() -> None:
            began_s = loop.time()
            await scheduler.submit(None)
            outcome.latencies_s.append(loop.time() - began_s)

        async with asyncio.TaskGroup() as requests:
            while loop.time() < seconds:
                await asyncio.sleep(rng.expovariate(per_second))
                requests.create_task(request())

    return load


def both(*loads: Load) -> Load:
    """Return several loads at once."""

    async def load(scheduler: Scheduler, outcome: Outcome, rng: random.Random, seconds: float) -> None:
        await asyncio.gather(*(one(scheduler, outcome, rng, seconds) for one in loads))

    return load


def simulate(load: Load, device: Device, *, hold: bool, seconds: float, seed: int) -> Outcome:
    """Run one load on one device for so many virtual seconds."""
    outcome = Outcome(seconds)
    loop = VirtualLoop()

    async def run(items: Sequence[Item]) -> Sequence[Any]:
        outcome.batches.append(sum(item.rows for item in items))
        await asyncio.sleep(device.fixed_s + device.per_row_s * outcome.batches[-1])
        return [None] * len(items)

    async def main() -> None:
        policy = BatchingPolicy(max_batch_size=MAX_BATCH_SIZE, instances=device.instances, cohort_hold=hold)
        scheduler = Scheduler(policy, run, clock_ns=loop.time_ns)
        # The seed makes runs repeatable; nothing here is secret.
        await load(scheduler, outcome, random.Random(seed), seconds)  # noqa: S311
        snapshot = scheduler.snapshot()
        outcome.return_rate, outcome.held_s = snapshot.return_rate, snapshot.held_s
        await scheduler.close(drain=True)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return outcome


def overhead_us(callers: int, requests: int = 2000) -> float:
    """Return the CPU microseconds from submit to result, with a device that answers at once, on the real clock.

    The callers are counted in: each is a task that awaits one request after the other.
    """

    async def run(items: Sequence[Item]) -> Sequence[Any]:
        return [None] * len(items)

    async def main() -> float:
        scheduler = Scheduler(BatchingPolicy(max_batch_size=64), run)

        async def caller() -> None:
            for _ in range(requests):
                await scheduler.submit(None, shape_key=(64,))

        began_s = time.process_time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return (time.process_time() - began_s) / (callers * requests) * 1e6

    return asyncio.run(main())


FIXED = Device()
SCENARIOS: Mapping[str, tuple[Load, Device]] = {
    "1 caller": (closed_loop(1), FIXED),
    "2 callers": (closed_loop(2), FIXED),
    "8 callers": (closed_loop(8), FIXED),
    "32 callers": (closed_loop(32), FIXED),
    "64 callers": (closed_loop(64), FIXED),
    "Poisson, 70 % load": (poisson(0.7 * MAX_BATCH_SIZE / 0.02), FIXED),
    "Poisson, 3 % load": (poisson(0.03 * MAX_BATCH_SIZE / 0.02), FIXED),
    "8 callers + Poisson, 30 % load": (both(closed_loop(8), poisson(0.3 * MAX_BATCH_SIZE / 0.02)), FIXED),
    "8 callers, 5 to 30 ms away": (closed_loop(8, (0.005, 0.03)), FIXED),
    "8 callers, 20 ms per row": (closed_loop(8), Device(fixed_s=0, per_row_s=0.02)),
    "8 callers, 10 ms + 1 ms per row": (closed_loop(8), Device(fixed_s=0.01, per_row_s=0.001)),
    "8 callers, 2 instances": (closed_loop(8), Device(instances=2)),
    "32 callers, 2 instances": (closed_loop(32), Device(instances=2)),
    "64 callers, 2 instances": (closed_loop(64), Device(instances=2)),
    "32 callers, 4 instances": (closed_loop(32), Device(instances=4)),
    "Poisson, 70 % load, 2 instances": (poisson(0.7 * 2 * MAX_BATCH_SIZE / 0.02), Device(instances=2)),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="virtual seconds per run")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"Device: 20 ms unless it says otherwise; batch of at most {MAX_BATCH_SIZE}; round trip 0.3 to 2 ms.\n")
    print(
        "| load | greedy: req/s | p50 ms | p99 ms | batch | hold: req/s | p50 ms | p99 ms | batch | ratio | returns |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, (load, device) in SCENARIOS.items():
        greedy, held = (
            simulate(load, device, hold=hold, seconds=arguments.seconds, seed=arguments.seed) for hold in (False, True)
        )
        columns = [
            f"{outcome.rate:.0f} | {outcome.quantile_ms(0.5):.1f} | {outcome.quantile_ms(0.99):.1f} | "
            f"{sum(outcome.batches) / len(outcome.batches):.1f}"
            for outcome in (greedy, held)
        ]
        print(f"| {name} | {' | '.join(columns)} | {held.rate / greedy.rate:.2f} | {held.return_rate:.2f} |")
    print(
        f"\nThe scheduler's own cost per request: {overhead_us(64):.1f} us of CPU with 64 callers, "
        f"{overhead_us(1):.1f} us with 1."
    )


if __name__ == "__main__":
    main()
