"""Ray Serve as installed: an ingress deployment calls a runner with `@serve.batch` through a handle.

MODELS=name=folder,… BATCH_WAIT_S=… python ray_server.py PORT RAY_FOLDER
"""

# ruff: noqa: ANN001, ANN201, ANN204 - runs in a peer's environment, in the style of its examples

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import ray
import v2
from ray import serve
from session import Session
from starlette.requests import Request
from starlette.responses import Response

MODELS = dict(pair.split("=", 1) for pair in os.environ["MODELS"].split(","))
# The default of 5 would cap every batch at 5.
ONGOING = 256


@serve.deployment(max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0})
class Runner:
    """One model."""

    def __init__(self, folder, wait_s):
        self.session = Session(folder)
        self.infer_batch.set_max_batch_size(max(self.session.max_batch_size, 1))
        self.infer_batch.set_batch_wait_timeout_s(wait_s if self.session.max_batch_size else 0)

    @serve.batch
    async def infer_batch(self, rows):
        """Run the rows that came together."""
        outputs = self.session.run(np.concatenate(rows) if len(rows) > 1 else rows[0])
        return [[output[index : index + 1] for output in outputs] for index in range(len(rows))]

    async def infer(self, row):
        """Run one row with others."""
        return await self.infer_batch(row), self.session.outputs


@serve.deployment(max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0})
class Ingress:
    """HTTP to handle calls."""

    def __init__(self, runners):
        self.runners = runners

    async def __call__(self, request: Request):
        """Answer an inference, or that the server lives."""
        if request.method == "GET":
            return Response()
        name = request.url.path.split("/")[3]
        row = v2.decode(await request.body(), request.headers[v2.HEADER])
        outputs, names = await self.runners[name].infer.remote(row)
        body, headers = v2.encode(name, names, outputs)
        return Response(body, headers=headers)


def main():
    """Serve until SIGTERM."""
    stop = threading.Event()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        _temp_dir=sys.argv[2],
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parent)}},
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    wait_s = float(os.environ["BATCH_WAIT_S"])
    runners = {name: Runner.options(name=f"runner-{name}").bind(folder, wait_s) for name, folder in MODELS.items()}
    serve.run(Ingress.bind(runners), name="bench", route_prefix="/")
    print("ready", flush=True)
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
