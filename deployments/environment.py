"""The switches of Ray, Ray Serve and HAProxy: what every process of a server must see before it imports ray."""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import NamedTuple

from trygon.deployments.ports import ServerPorts
from trygon.settings import Settings

RUNTIME_DIR_VARIABLE = "TRYGON_RUNTIME_DIR"


class Switch(NamedTuple):
    """One environment variable, the value a server wants, and why."""

    name: str
    value: str
    reason: str


def switches(settings: Settings, *, cpus: int) -> Iterator[Switch]:
    """Yield the switches of every server, on a cluster of its own or on one that it joins."""
    yield Switch("RAY_SERVE_ENABLE_HA_PROXY", "1", "requests reach the replica without a Python proxy between")
    yield Switch("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1", "one event loop per replica, gRPC between replicas")
    yield Switch(
        "RAY_SERVE_HAPROXY_NBTHREAD", str(max(1, min(4, cpus // 2))), "more threads than this take the models' cores"
    )
    yield Switch(
        "RAY_SERVE_HAPROXY_METRICS_ENABLED", "0", "a Python actor that reads a log line per request takes 9 % of a core"
    )
    yield Switch("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "10000", "the default of 100 ms costs a busy replica dearly")
    yield Switch(
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", str(2**31 - 1), "a handle call of 5 MB fails with the default"
    )
    yield Switch(
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE",
        str(min(2**31 - 1, 4 * settings.ingress.max_body_bytes)),
        "the default takes 2 GiB from anyone; answers may be larger than requests, hence the factor",
    )
    for side in ("FE", "BE"):
        yield Switch(
            f"RAY_SERVE_HAPROXY_H2_{side}_INITIAL_WINDOW_SIZE", str(2**20), "large gRPC bodies crawl through 64 KiB"
        )
    yield Switch("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "2", "the default holds every stop for 30 s")
    yield Switch("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0", "Ray would start every worker through `uv run` again")
    yield Switch("RAY_USAGE_STATS_ENABLED", "0", "a model server reports to nobody")
    yield Switch("RAY_DEDUP_LOGS", "0", "the log holds what happened, in full")


def mark(runtime_dir: Path) -> Iterator[Switch]:
    """Yield the mark by which every process of a server is recognised as its own."""
    yield Switch(RUNTIME_DIR_VARIABLE, str(runtime_dir), "orphans of a crash are told from strangers by it")


def local_switches(runtime_dir: Path, ports: ServerPorts) -> Iterator[Switch]:
    """Yield the switches that keep apart several servers on one machine, each with a Ray of its own."""
    own = "several servers share a machine"
    for variable, name in (
        ("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", "haproxy.cfg"),
        ("RAY_SERVE_HAPROXY_SOCKET_PATH", "admin.sock"),
        ("RAY_SERVE_HAPROXY_SERVER_STATE_FILE", "server-state"),
        ("RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH", "metrics.sock"),
    ):
        yield Switch(variable, str(runtime_dir / name), own)
    yield Switch("RAY_SERVE_HAPROXY_SERVER_STATE_BASE", str(runtime_dir), own)
    for variable, port in (
        ("RAY_SERVE_HAPROXY_METRICS_PORT", ports.haproxy_metrics),
        ("RAY_SERVE_HAPROXY_STATS_PORT", ports.haproxy_stats),
        ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", ports.fallback_http),
        ("RAY_SERVE_FALLBACK_PROXY_GRPC_PORT", ports.fallback_grpc),
        ("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", ports.replica_http.start),
        ("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", ports.replica_http.stop),
        ("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT", ports.replica_grpc.start),
        ("RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT", ports.replica_grpc.stop),
    ):
        yield Switch(variable, str(port), own)


def apply(wanted: Iterator[Switch], environment: MutableMapping[str, str]) -> None:
    """Set the switches in `environment`. What the user has set stays, except the mark, which is never theirs."""
    for switch in wanted:
        if switch.name == RUNTIME_DIR_VARIABLE:
            environment[switch.name] = switch.value
        else:
            environment.setdefault(switch.name, switch.value)


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
