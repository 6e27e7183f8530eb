"""The process that holds Ray: starts Ray, Serve and the application, reports on stdout, ends them at end of input.

The `trygon` command starts it as `python -m trygon.deployments.cluster` and stays outside of Ray itself, because Ray
takes over the signals of the process that it lives in and may abort it. One `Order` on stdin says what to start; the
end of stdin says to stop, which it also does when the command was killed. Every line on stdout is one `Event`.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TextIO

import ray
from ray import serve
from ray._private import node, parameter
from ray.serve.schema import ApplicationStatus, LoggingConfig

from trygon.deployments.app import build
from trygon.deployments.cluster_process import Event, Order, Stage
from trygon.deployments.environment import available_cpus
from trygon.errors import ErrorCode, InferenceError
from trygon.settings import Settings

APPLICATION = "trygon"
GRPC_SERVICERS = (
    "trygon.deployments.api.proto.grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
)
OBJECT_STORE_BYTES = 512 * 1024 * 1024  # tensors travel by gRPC; only handle calls from other applications lie here
LEAST_CPUS = 2  # the ingress and one replica of each framework reserve 1.6
STATUS_POLL_S = 0.5
WATCHER_END_S = 5

logger = logging.getLogger("trygon.cluster")


def start(order: Order, report: Callable[[Event], None]) -> Callable[[], None]:
    """Start Ray, Serve and the application, reporting each stage; return what ends them again."""
    settings = Settings.load(**order.settings)
    address = _start_ray(order)
    report(Event(Stage.RAY, address=address))
    joined_serve = bool(order.address) and bool(serve.status().proxies)
    serve.start(
        proxy_location="HeadOnly" if not order.address else "EveryNode",
        http_options={"host": settings.host, "port": settings.http_port},
        grpc_options={"port": settings.grpc_port, "grpc_servicer_functions": list(GRPC_SERVICERS)},
        logging_config=_logging(order),
    )
    report(Event(Stage.SERVE))
    target = serve.RunTarget(target=build(settings), name=APPLICATION, route_prefix="/", logging_config=_logging(order))
    serve.run_many([target], wait_for_applications_running=False)
    report(Event(Stage.APPLICATION))

    def stop() -> None:
        if joined_serve:
            serve.delete(APPLICATION)
        else:
            serve.shutdown()
        ray.shutdown(wait_for_processes=True)

    return stop


def watch(stop: threading.Event, report: Callable[[Event], None]) -> None:
    """Report when the application is up or has failed for good, until `stop` is set."""
    reported = None
    while not stop.wait(STATUS_POLL_S):
        application = serve.status().applications.get(APPLICATION)
        if application is None or application.status == reported:
            continue
        reported = application.status
        if reported == ApplicationStatus.RUNNING:
            report(Event(Stage.RUNNING))
        elif reported == ApplicationStatus.DEPLOY_FAILED:
            report(Event(Stage.FAILED, code=ErrorCode.SYSTEM_START_FAILED.name, message=application.message))


def run(orders: TextIO, report: Callable[[Event], None]) -> int:
    """Carry out the order on the first line of `orders` until the end of `orders`; return the exit code."""
    began = time.monotonic()
    try:
        order = Order.from_line(orders.readline())
        logging.basicConfig(level=order.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        end = start(order, report)
    except InferenceError as error:
        logger.exception("start failed")
        report(Event(Stage.FAILED, code=error.code.name, message=error.message))
        return 1
    except Exception as error:
        logger.exception("start failed")
        report(Event(Stage.FAILED, code=ErrorCode.SYSTEM_START_FAILED.name, message=f"{type(error).__name__}: {error}"))
        return 1
    logger.info("started in %.1f s", time.monotonic() - began)
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(stop, report), name="watch", daemon=True)
    watcher.start()
    orders.read()
    stop.set()
    watcher.join(timeout=WATCHER_END_S)
    end()
    return 0


def main() -> int:
    """Run from the order on stdin to its end, with stdout for events alone; return the exit code."""
    os.umask(0o077)  # Ray writes its token and its logs for everyone to read
    report = reporter(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # Ray's libraries print: that belongs into the log
    return run(sys.stdin, report)


def _start_ray(order: Order) -> str:
    common: dict[str, Any] = {"namespace": "serve", "log_to_driver": False, "logging_level": order.log_level}
    if order.address:
        try:
            context = ray.init(address=order.address, **common)
        except ConnectionError as error:
            raise InferenceError(
                ErrorCode.SYSTEM_START_FAILED,
                f"cannot join Ray at {order.address}: {error} (a cluster with a token needs RAY_AUTH_MODE=token)",
                address=order.address,
            ) from error
    else:
        with _lean_node():
            context = ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=max(LEAST_CPUS, available_cpus()),
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=order.ray_dir,
                **common,
            )
    return str(context.address_info["gcs_address"])


@contextmanager
def _lean_node() -> Iterator[None]:
    """Let `ray.init` start what a server needs and no more, for which it has no arguments.

    Without it Ray starts an autoscaler, a log monitor and the head of the dashboard (300 MB together, and 4 of the 30 s
    of a start on two cores), and its agent tries a fixed port for 3.5 s when another Ray has it.
    """
    params, start_api_server = parameter.RayParams, node.Node.start_api_server
    parameter.RayParams = partial(params, no_monitor=True, include_log_monitor=False, dashboard_agent_listen_port=0)
    node.Node.start_api_server = lambda *_, **__: None
    try:
        yield
    finally:
        parameter.RayParams, node.Node.start_api_server = params, start_api_server


def _logging(order: Order) -> LoggingConfig:
    # The access log halves the requests per second at 64 connections.
    return LoggingConfig(log_level=order.log_level, enable_access_log=False)


def reporter(stream: TextIO) -> Callable[[Event], None]:
    """Return what writes events to `stream`, and carries on when nobody reads them any more."""

    def report(event: Event) -> None:
        try:
            print(event.to_line(), file=stream, flush=True)
        except BrokenPipeError:  # the command was killed: nobody reads any more, and stdin ends too
            logger.warning("nobody reads %s", event.stage)

    return report


if __name__ == "__main__":
    sys.exit(main())
