"""The life of one server as the command leads it: checks, orphans, start, progress, and an end that leaves nothing."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from types import FrameType

import click

from trygon.deployments.cluster_process import ClusterProcess, Event, Order, Stage
from trygon.deployments.console import Progress, show_index
from trygon.deployments.data_directory import DataDirectory
from trygon.deployments.environment import apply, available_cpus, local_switches, mark, switches
from trygon.deployments.exposure import require_identity_source
from trygon.deployments.ports import choose_ports, is_loopback, require_free
from trygon.deployments.processes import end_processes
from trygon.deployments.readiness import Readiness, Verdict
from trygon.deployments.repository_client import IndexRow, RepositoryClient, grpc_is_live
from trygon.errors import ErrorCode, InferenceError
from trygon.settings import Settings

START_TIMEOUT_S = 120  # Ray, Serve and the application take 15 s on two idle cores
DRAIN_TIMEOUT_S = 12  # with KILL_TIMEOUT_S below the 20 s that a stop may take
KILL_TIMEOUT_S = 5
POLL_S = 0.25
PROBE_TIMEOUT_S = 2
SAME_SIGNAL_S = 1

STAGE_TEXTS = {
    Stage.RAY: "Starting Ray Serve",
    Stage.SERVE: "Deploying the application",
    Stage.APPLICATION: "Waiting for the first replicas",
    Stage.RUNNING: "The application is running",
}

logger = logging.getLogger("trygon.server")


@dataclass(frozen=True, slots=True)
class Launch:
    """How the command was called, beside the settings."""

    address: str = ""
    exit_on_error: bool = False
    log_level: str = "INFO"


class StopSignals:
    """SIGINT and SIGTERM from the moment this is made: the first asks for a stop, a later one for haste.

    A signal within `SAME_SIGNAL_S` of the first is its echo: `make` and `uv run` pass on what the terminal has sent to
    every process already.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stop = threading.Event()
        self.haste = threading.Event()
        self._clock = clock
        self._first = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self.stop.is_set():
            self._first = self._clock()
            self.stop.set()
        elif self._clock() - self._first > SAME_SIGNAL_S:
            self.haste.set()


def check_exposure(settings: Settings) -> None:
    """Refuse to let anybody in unidentified from other machines.

    Raises: SYSTEM_CONFIG_INVALID.
    """
    require_identity_source(settings)
    if not is_loopback(settings.host):
        raise InferenceError(
            ErrorCode.SYSTEM_CONFIG_INVALID,
            f"profile {settings.profile} lets everybody in, so it binds to loopback only, and {settings.host} is not: "
            "use --host 127.0.0.1",
            host=settings.host,
            profile=settings.profile.value,
        )
    if settings.http_port == settings.grpc_port:
        raise InferenceError(
            ErrorCode.SYSTEM_CONFIG_INVALID, f"HTTP and gRPC cannot both have port {settings.http_port}"
        )


@dataclass(slots=True)
class _Startup:
    """What is known of a start while it goes on."""

    deployed: bool = False
    ray_address: str = ""
    rows: Sequence[IndexRow] = ()


class Server:
    """One server from start to end.

    `signals` tell it when to stop, `progress` shows how the start goes.
    """

    def __init__(self, settings: Settings, launch: Launch, signals: StopSignals, progress: Progress) -> None:
        self._settings = settings
        self._launch = launch
        self._signals = signals
        self._progress = progress
        self._directory = DataDirectory(settings.data_dir)
        self._state_file = self._directory.path / "server.json"
        self._log = self._directory.logs / "trygon.log"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.http_url = f"http://{host}:{settings.http_port}"
        self.grpc_target = f"{host}:{settings.grpc_port}"

    def run(self) -> None:
        """Start, serve until a signal comes, and end.

        Raises: SYSTEM_CONFIG_INVALID, REQUEST_CONFLICT, SYSTEM_PORT_IN_USE, SYSTEM_START_FAILED, MODEL_UNAVAILABLE.
        """
        check_exposure(self._settings)
        with self._directory, self._logging():
            try:
                self._run_locked()
            except Exception:
                logger.exception("the server ended")
                raise

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Write the log of this start, and keep that of the one before."""
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".log.1"))
        handler = logging.FileHandler(self._log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        ours = logging.getLogger("trygon")
        ours.setLevel(self._launch.log_level)
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)
            handler.close()

    def _run_locked(self) -> None:
        self._end_orphans()
        if not self._launch.address:
            require_free(self._settings.host, self._settings.http_port)
            require_free(self._settings.host, self._settings.grpc_port)
        self._directory.make_runtime_dir()
        self._progress.stage("Joining Ray" if self._launch.address else "Starting Ray")
        cluster = ClusterProcess(self._order(), self._environment(), self._log)
        startup = _Startup()
        try:
            if self._follow(cluster, startup):
                self._announce(startup)
                self._serve(cluster)
        finally:
            self._end(cluster, startup)

    def _end_orphans(self) -> None:
        """End what a server that was killed has left. The lock says that no server of this directory lives."""
        left = end_processes(self._directory.runtime_dir, timeout_s=KILL_TIMEOUT_S)
        if left:
            raise InferenceError(
                ErrorCode.SYSTEM_START_FAILED,
                f"processes of an earlier server do not end: {', '.join(str(process.pid) for process in left)}",
            )

    def _order(self) -> Order:
        settings = self._settings.model_dump(mode="json")
        if not self._launch.address:
            # The listener is loopback's, but Ray Serve lets each replica's gRPC port listen on all interfaces.
            settings["ingress"]["local_only"] = True
        return Order(
            settings=settings,
            address=self._launch.address,
            ray_dir=str(self._directory.runtime_dir / "ray"),
            log_level=self._launch.log_level,
        )

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        wanted = chain(mark(self._directory.runtime_dir), switches(self._settings, cpus=available_cpus()))
        if not self._launch.address:
            taken = (self._settings.http_port, self._settings.grpc_port)
            ports = choose_ports(self._directory.path, taken)
            wanted = chain(wanted, local_switches(self._directory.runtime_dir, ports))
        apply(wanted, environment)
        return environment

    def _follow(self, cluster: ClusterProcess, startup: _Startup) -> bool:
        """Follow the start until models have settled; return False when a signal came first."""
        with RepositoryClient(self.http_url, timeout_s=PROBE_TIMEOUT_S) as client:
            readiness = Readiness(client, lambda: grpc_is_live(self.grpc_target))
            deadline = time.monotonic() + START_TIMEOUT_S
            while not self._signals.stop.is_set():
                event = cluster.next_event(POLL_S)
                if event:
                    self._heed(event, startup)
                    if event.stage is Stage.APPLICATION:
                        deadline = time.monotonic() + self._settings.load_timeout_s
                elif cluster.exit_code is not None:
                    raise _ended(cluster)
                verdict = readiness.look() if startup.deployed else Verdict.WAIT
                startup.rows = readiness.rows
                self._progress.models(startup.rows)
                if verdict is Verdict.SETTLED:
                    return True
                if time.monotonic() > deadline:
                    return self._late(startup)
        return False

    def _heed(self, event: Event, startup: _Startup) -> None:
        logger.info("reached stage %s", event.stage)
        if event.stage is Stage.FAILED:
            raise InferenceError.restore(event.code, event.message or "Ray Serve could not deploy the application", {})
        self._progress.stage(STAGE_TEXTS[event.stage])
        startup.ray_address = event.address or startup.ray_address
        startup.deployed = startup.deployed or event.stage is Stage.APPLICATION

    def _late(self, startup: _Startup) -> bool:
        """Give up waiting: the server goes on with the models it has, unless it has not answered at all."""
        if startup.rows:
            logger.warning("models are still loading after %s s", self._settings.load_timeout_s)
            return True
        limit_s = self._settings.load_timeout_s if startup.deployed else START_TIMEOUT_S
        raise InferenceError(ErrorCode.SYSTEM_START_FAILED, f"the server did not answer within {limit_s:g} s")

    def _announce(self, startup: _Startup) -> None:
        self._progress.done()
        show_index(startup.rows)
        bad = [row for row in startup.rows if row.has_failed or row.is_moving]
        if bad and self._launch.exit_on_error:
            reasons = "; ".join(f"{row.name} {row.version}: {row.reason or row.state}" for row in bad)
            raise InferenceError(ErrorCode.MODEL_UNAVAILABLE, f"not every model could be loaded: {reasons}")
        state = {
            "pid": os.getpid(),
            "http": self.http_url,
            "grpc": self.grpc_target,
            "ray_address": startup.ray_address,
        }
        self._state_file.write_text(json.dumps(state, indent=2) + "\n")
        click.echo(f"Trygon is ready: {self.http_url} (gRPC {self.grpc_target})")

    def _serve(self, cluster: ClusterProcess) -> None:
        while not self._signals.stop.wait(POLL_S):
            if cluster.exit_code is not None:
                raise _ended(cluster)

    def _end(self, cluster: ClusterProcess, startup: _Startup) -> None:
        """End all that was started: in good order where something is being served, at once otherwise."""
        self._progress.stage("Stopping")
        self._state_file.unlink(missing_ok=True)
        if startup.deployed or self._launch.address:
            cluster.ask_to_stop()
            _wait(lambda: cluster.exit_code is not None or self._signals.haste.is_set(), DRAIN_TIMEOUT_S)
        logger.info("the cluster's process ended with %s", cluster.exit_code)
        cluster.kill()
        left = end_processes(self._directory.runtime_dir, timeout_s=KILL_TIMEOUT_S)
        if left:
            raise InferenceError(
                ErrorCode.SYSTEM_INTERNAL,
                f"processes do not end: {', '.join(str(process.pid) for process in left)}",
            )
        self._directory.clear_runtime_dir()


def _ended(cluster: ClusterProcess) -> InferenceError:
    return InferenceError(
        ErrorCode.SYSTEM_START_FAILED, f"the process that holds Ray ended by itself (exit code {cluster.exit_code})"
    )


def _wait(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not done() and time.monotonic() < deadline:
        pause.wait(POLL_S)
