"""The life of one server, with a stand-in for the process that holds Ray and a real HTTP server in Serve's place.

The real ones are started by tests/integration/test_lifecycle.py.
"""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trygon.deployments import server as server_module
from trygon.deployments.cluster_process import Event, Order, Stage
from trygon.deployments.console import Progress
from trygon.deployments.data_directory import DataDirectory
from trygon.deployments.server import Launch, Server, StopSignals, check_exposure
from trygon.errors import ErrorCode, InferenceError
from trygon.settings import Settings

STARTED = (Event(Stage.RAY, address="10.0.0.1:6379"), Event(Stage.SERVE), Event(Stage.APPLICATION))
GOOD = ("digits", "1", "READY", "")
BAD = ("broken", "1", "UNAVAILABLE", "no model")


class Cluster:
    """Stands in for the process that holds Ray: reports `script`, then does what `then` says at each further poll."""

    def __init__(self) -> None:
        self.script: list[Event] = list(STARTED)
        self.then: Callable[[], None] = lambda: None
        self.order: Order | None = None
        self.environment: dict[str, str] = {}
        self.asked_to_stop = False
        self.killed = False
        self.exit_code: int | None = None

    def __call__(self, order: Order, environment: dict[str, str], log: Path) -> "Cluster":
        assert log.parent.is_dir()
        self.order, self.environment = order, environment
        return self

    def next_event(self, timeout_s: float) -> Event | None:
        del timeout_s
        if self.script:
            return self.script.pop(0)
        self.then()
        return None

    def ask_to_stop(self) -> None:
        self.asked_to_stop = True
        self.exit_code = 0

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(server_module, "ClusterProcess", cluster)
    monkeypatch.setattr(server_module, "grpc_is_live", lambda _: True)
    monkeypatch.setattr(server_module, "require_free", lambda *_: None)
    monkeypatch.setattr(server_module, "POLL_S", 0.001)
    return cluster


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield StopSignals()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def make(tmp_path: Path, v2_server: Any, cluster: Cluster, signals: StopSignals) -> Iterator[Callable[..., Server]]:
    def make(launch: Launch | None = None, **given: Any) -> Server:
        settings = Settings.load(data_dir=tmp_path / "data", http_port=v2_server.port, grpc_port=18_999, **given)
        return Server(settings, launch or Launch(), signals, Progress())

    assert cluster.exit_code is None
    yield make
    DataDirectory(tmp_path / "data").clear_runtime_dir()


def state_file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "server.json"


def stop_once_announced(tmp_path: Path, signals: StopSignals, seen: dict[str, Any]) -> Callable[[str], None]:
    """Return a `print` that notes the state file at the ready line, and then asks for a stop."""

    def echo(line: str) -> None:
        print(line)  # noqa: T201 - what click.echo does
        if line.startswith("Trygon is ready"):
            seen.update(json.loads(state_file(tmp_path).read_text()))
            signals.stop.set()

    return echo


@pytest.fixture
def announced(tmp_path: Path, signals: StopSignals, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the state file held at the ready line, after which a stop is asked for."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(server_module.click, "echo", stop_once_announced(tmp_path, signals, seen))
    return seen


def answer_ready(v2_server: Any, *rows: tuple[str, str, str, str]) -> None:
    v2_server.answers["GET /q/health/ready"] = (200, {})
    v2_server.set_index(*rows)


def test_a_server_says_when_it_is_ready_and_where(
    make: Callable[..., Server],
    v2_server: Any,
    announced: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer_ready(v2_server, GOOD)
    make().run()
    assert f"Trygon is ready: {v2_server.url} (gRPC 127.0.0.1:18999)" in capsys.readouterr().out.splitlines()
    assert announced["http"] == v2_server.url
    assert announced["ray_address"] == "10.0.0.1:6379"
    assert not state_file(tmp_path).exists()


def test_the_end_is_asked_for_before_anything_is_killed(
    make: Callable[..., Server], v2_server: Any, announced: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    answer_ready(v2_server, GOOD)
    make().run()
    assert announced
    assert cluster.asked_to_stop
    assert cluster.killed
    assert not DataDirectory(tmp_path / "data").runtime_dir.exists()


def test_the_cluster_gets_the_settings_the_mark_and_the_switches(
    make: Callable[..., Server], v2_server: Any, announced: dict[str, Any], cluster: Cluster
) -> None:
    answer_ready(v2_server, GOOD)
    make(server_name="triton").run()
    assert announced
    assert cluster.order
    assert cluster.order.settings["server_name"] == "triton"
    assert cluster.environment["TRYGON_RUNTIME_DIR"] in cluster.order.ray_dir
    assert cluster.environment["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"].startswith(
        cluster.environment["TRYGON_RUNTIME_DIR"]
    )


def test_a_cluster_that_is_joined_keeps_its_own_haproxy(
    make: Callable[..., Server], v2_server: Any, announced: dict[str, Any], cluster: Cluster
) -> None:
    answer_ready(v2_server, GOOD)
    make(Launch(address="auto")).run()
    assert announced
    assert "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC" not in cluster.environment


def test_a_bad_model_is_shown_and_stops_nobody(
    make: Callable[..., Server],
    v2_server: Any,
    announced: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trygon.deployments.readiness.STILL_S", 0)
    v2_server.set_index(GOOD, BAD)
    make().run()
    assert announced
    assert "broken  1        UNAVAILABLE  no model" in capsys.readouterr().out


def test_a_bad_model_is_fatal_when_asked_for(make: Callable[..., Server], v2_server: Any, cluster: Cluster) -> None:
    answer_ready(v2_server, GOOD, BAD)
    with pytest.raises(InferenceError, match="broken 1: no model") as caught:
        make(Launch(exit_on_error=True)).run()
    assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE
    assert cluster.asked_to_stop


def test_a_model_that_nobody_asked_for_is_not_fatal(
    make: Callable[..., Server], v2_server: Any, announced: dict[str, Any]
) -> None:
    answer_ready(v2_server, GOOD, ("other", "1", "UNAVAILABLE", "unloaded"))
    make(Launch(exit_on_error=True)).run()
    assert announced


def test_a_model_that_loads_for_ever_does_not_hold_up_the_others(
    make: Callable[..., Server], v2_server: Any, announced: dict[str, Any]
) -> None:
    v2_server.set_index(GOOD, ("slow", "1", "LOADING", ""))
    make(load_timeout_s=0.05).run()
    assert announced


def test_a_server_that_never_answers_is_given_up(make: Callable[..., Server], cluster: Cluster) -> None:
    with pytest.raises(InferenceError, match=r"did not answer within 0\.05 s") as caught:
        make(load_timeout_s=0.05).run()
    assert caught.value.code is ErrorCode.SYSTEM_START_FAILED
    assert cluster.killed


def test_a_ray_that_never_starts_is_given_up(
    make: Callable[..., Server], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.script.clear()
    monkeypatch.setattr(server_module, "START_TIMEOUT_S", 0)
    with pytest.raises(InferenceError, match="did not answer within 0 s"):
        make().run()
    assert not cluster.asked_to_stop
    assert cluster.killed


def test_a_failure_of_the_cluster_is_passed_on_and_written_to_the_log(
    make: Callable[..., Server], cluster: Cluster, tmp_path: Path
) -> None:
    cluster.script = [Event(Stage.FAILED, code="MODEL_REPOSITORY_INVALID", message="no folder")]
    with pytest.raises(InferenceError, match="no folder") as caught:
        make().run()
    assert caught.value.code is ErrorCode.MODEL_REPOSITORY_INVALID
    assert "Traceback" in (tmp_path / "data" / "logs" / "trygon.log").read_text()


def test_a_cluster_that_dies_during_the_start_is_a_failure(make: Callable[..., Server], cluster: Cluster) -> None:
    cluster.script.clear()
    cluster.exit_code = -9
    with pytest.raises(InferenceError, match="exit code -9"):
        make().run()


def test_a_cluster_that_dies_while_it_serves_is_a_failure(
    make: Callable[..., Server], v2_server: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(line: str) -> None:
        if line.startswith("Trygon is ready"):
            cluster.exit_code = 1

    monkeypatch.setattr(server_module.click, "echo", die)
    answer_ready(v2_server, GOOD)
    with pytest.raises(InferenceError, match="exit code 1"):
        make().run()


def test_a_signal_during_the_start_ends_it_at_once(
    make: Callable[..., Server], cluster: Cluster, signals: StopSignals
) -> None:
    cluster.script = [Event(Stage.RAY)]
    cluster.then = signals.stop.set
    make().run()
    assert not cluster.asked_to_stop
    assert cluster.killed


def test_a_second_signal_does_not_wait_for_the_drain(
    make: Callable[..., Server], cluster: Cluster, signals: StopSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> None:
        signals.haste.set()

    monkeypatch.setattr(cluster, "ask_to_stop", hang)
    cluster.then = signals.stop.set
    make().run()
    assert cluster.killed
    assert cluster.exit_code is None


def test_processes_that_do_not_end_are_named(
    make: Callable[..., Server], cluster: Cluster, signals: StopSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn:
        pid = 4711

    cluster.then = signals.stop.set
    found: list[list[Stubborn]] = [[], [Stubborn()]]
    monkeypatch.setattr(server_module, "end_processes", lambda *_, **__: found.pop(0))
    with pytest.raises(InferenceError, match="4711") as caught:
        make().run()
    assert caught.value.code is ErrorCode.SYSTEM_INTERNAL


def test_orphans_that_do_not_end_stop_the_start(
    make: Callable[..., Server], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn:
        pid = 4711

    monkeypatch.setattr(server_module, "end_processes", lambda *_, **__: [Stubborn()])
    with pytest.raises(InferenceError, match="4711") as caught:
        make().run()
    assert caught.value.code is ErrorCode.SYSTEM_START_FAILED
    assert cluster.order is None


def test_the_log_of_the_start_before_is_kept(
    make: Callable[..., Server], cluster: Cluster, signals: StopSignals, tmp_path: Path
) -> None:
    cluster.then = signals.stop.set
    make().run()
    cluster.script, cluster.exit_code = [], None
    make().run()
    assert sorted(path.name for path in (tmp_path / "data" / "logs").iterdir()) == ["trygon.log", "trygon.log.1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "prod"}, "no identity source"),
        ({"host": "192.0.2.1"}, "binds to loopback only"),
        ({"profile": "test", "host": "192.0.2.1"}, "profile test lets everybody in"),
        ({"http_port": 8001}, "cannot both have port 8001"),
    ],
)
def test_what_is_not_safe_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InferenceError, match=message) as caught:
        check_exposure(Settings.load(**given))
    assert caught.value.code is ErrorCode.SYSTEM_CONFIG_INVALID


def test_an_ipv6_host_stands_in_brackets(signals: StopSignals, tmp_path: Path) -> None:
    server = Server(Settings.load(host="::1", data_dir=tmp_path), Launch(), signals, Progress())
    assert (server.http_url, server.grpc_target) == ("http://[::1]:8000", "[::1]:8001")


def test_the_first_signal_asks_for_a_stop_its_echo_for_nothing_and_a_later_one_for_haste() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    now = iter([10.0, 10.5, 12.0])
    try:
        signals = StopSignals(clock=lambda: next(now))
        assert not signals.stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert signals.stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert not signals.haste.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert signals.haste.is_set()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
