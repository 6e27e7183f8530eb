"""The limit: the runtime alone in a loop, with whole batches and nobody to answer.

    python raw_loop.py FOLDER BATCH WARMUP_S WINDOW_S

prints JSON: requests (rows), seconds, p50_ms and p99_ms of a batch, cpu_s.
"""

# ruff: noqa: ANN201 - runs in a peer's environment, in the style of its examples

import json
import sys
import time

import numpy as np
from session import Session


def main():
    """Run and print."""
    folder, rows, warmup_s, window_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    session = Session(folder)
    batch = np.random.default_rng(7).standard_normal((rows, *session.shape), dtype=np.float32)
    start = time.perf_counter() + warmup_s
    while time.perf_counter() < start:
        session.run(batch)
    times, cpu_s, start = [], time.process_time(), time.perf_counter()
    now = start
    while now < start + window_s:
        session.run(batch)
        times.append(time.perf_counter() - now)
        now += times[-1]
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    found = {"requests": len(times) * rows, "seconds": now - start, "cpu_s": time.process_time() - cpu_s}
    print(json.dumps({**found, "p50_ms": p50, "p99_ms": p99}))


if __name__ == "__main__":
    main()
