"""The order in which Ray, Serve and the application start and end, with stand-ins for the three.

The real ones are started by tests/integration/test_lifecycle.py.
"""

import io
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from trygon.deployments import cluster
from trygon.deployments.cluster_process import Event, Order, Stage


class Cluster:
    """Stands in for ray, ray.serve and the composition root, and records what was asked of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.init_options: dict[str, Any] = {}
        self.start_options: dict[str, Any] = {}
        self.proxies: dict[str, str] = {}
        self.statuses: list[SimpleNamespace | None] = []
        self.stop = threading.Event()

    def init(self, **options: Any) -> SimpleNamespace:
        self.calls.append("ray.init")
        self.init_options = options
        return SimpleNamespace(address_info={"gcs_address": "10.0.0.1:6379"})

    def shutdown_ray(self, *, wait_for_processes: bool) -> None:
        assert wait_for_processes
        self.calls.append("ray.shutdown")

    def start(self, **options: Any) -> None:
        self.calls.append("serve.start")
        self.start_options = options

    def run_many(self, targets: list[Any], *, wait_for_applications_running: bool) -> None:
        assert not wait_for_applications_running
        self.calls.append(f"serve.run {targets[0].name} {targets[0].route_prefix}")

    def status(self) -> SimpleNamespace:
        application = self.statuses.pop(0) if self.statuses else None
        if not self.statuses:
            self.stop.set()
        applications = {} if application is None else {"trygon": application}
        return SimpleNamespace(proxies=self.proxies, applications=applications)

    def delete(self, name: str) -> None:
        self.calls.append(f"serve.delete {name}")

    def shutdown(self) -> None:
        self.calls.append("serve.shutdown")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster()
    monkeypatch.setattr(cluster.ray, "init", fake.init)
    monkeypatch.setattr(cluster.ray, "shutdown", fake.shutdown_ray)
    for name in ("start", "run_many", "status", "delete", "shutdown"):
        monkeypatch.setattr(cluster.serve, name, getattr(fake, name))
    monkeypatch.setattr(cluster, "build", lambda settings: settings)
    monkeypatch.setattr(cluster.serve, "RunTarget", SimpleNamespace)
    monkeypatch.setattr(cluster, "STATUS_POLL_S", 0)
    return fake


def order(**given: str) -> Order:
    return Order(
        **{"settings": {"http_port": 18_500}, "address": "", "ray_dir": "/x/ray", "log_level": "INFO", **given}
    )


def test_stages_are_reported_in_order_with_the_address_for_others_to_join(fake: Cluster) -> None:
    events: list[Event] = []
    cluster.start(order(), events.append)
    assert events == [Event(Stage.RAY, address="10.0.0.1:6379"), Event(Stage.SERVE), Event(Stage.APPLICATION)]
    assert fake.calls == ["ray.init", "serve.start", "serve.run trygon /"]


def test_a_ray_of_its_own_has_room_for_the_replicas_and_lies_where_it_was_told(fake: Cluster) -> None:
    cluster.start(order(), lambda _: None)
    assert fake.init_options["address"] == "local"
    assert fake.init_options["_temp_dir"] == "/x/ray"
    assert fake.init_options["num_cpus"] >= 2
    assert fake.start_options["proxy_location"] == "HeadOnly"


def test_a_ray_of_its_own_starts_neither_autoscaler_nor_dashboard_and_takes_no_fixed_port(
    fake: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    params: list[Any] = []

    def init(**options: Any) -> SimpleNamespace:
        params.append(cluster.parameter.RayParams())
        assert cluster.node.Node.start_api_server(include_dashboard=False) is None
        return fake.init(**options)

    monkeypatch.setattr(cluster.ray, "init", init)
    stock = cluster.parameter.RayParams, cluster.node.Node.start_api_server
    cluster.start(order(), lambda _: None)
    assert params[0].no_monitor
    assert params[0].include_log_monitor is False
    assert params[0].dashboard_agent_listen_port == 0
    assert (cluster.parameter.RayParams, cluster.node.Node.start_api_server) == stock


def test_both_protocols_get_their_ports_and_http_its_host(fake: Cluster) -> None:
    cluster.start(order(), lambda _: None)
    assert fake.start_options["http_options"] == {"host": "127.0.0.1", "port": 18_500}
    assert fake.start_options["grpc_options"]["port"] == 8001
    assert len(fake.start_options["grpc_options"]["grpc_servicer_functions"]) == 2


def test_the_end_takes_down_serve_and_then_ray(fake: Cluster) -> None:
    end = cluster.start(order(), lambda _: None)
    fake.calls.clear()
    end()
    assert fake.calls == ["serve.shutdown", "ray.shutdown"]


def test_a_serve_that_was_there_before_loses_our_application_alone(fake: Cluster) -> None:
    fake.proxies = {"node": "HEALTHY"}
    end = cluster.start(order(address="auto"), lambda _: None)
    assert fake.init_options["address"] == "auto"
    assert "num_cpus" not in fake.init_options
    assert fake.start_options["proxy_location"] == "EveryNode"
    fake.calls.clear()
    end()
    assert fake.calls == ["serve.delete trygon", "ray.shutdown"]


def test_a_serve_that_we_started_on_another_cluster_goes_with_us(fake: Cluster) -> None:
    cluster.start(order(address="auto"), lambda _: None)()
    assert "serve.shutdown" in fake.calls


def watched(fake: Cluster, *statuses: SimpleNamespace | None) -> list[Event]:
    """What is reported while the application has these statuses, one after the other."""
    events: list[Event] = []
    fake.statuses = list(statuses)
    cluster.watch(fake.stop, events.append)
    return events


def test_each_change_of_the_application_is_reported_once(fake: Cluster) -> None:
    deploying, running = SimpleNamespace(status="DEPLOYING"), SimpleNamespace(status="RUNNING")
    assert watched(fake, None, deploying, deploying, running, running) == [Event(Stage.RUNNING)]


def test_an_application_that_cannot_be_deployed_is_a_failure_with_serves_reason(fake: Cluster) -> None:
    failed = SimpleNamespace(status="DEPLOY_FAILED", message="no room")
    assert watched(fake, failed) == [Event(Stage.FAILED, code="SYSTEM_START_FAILED", message="no room")]


def test_the_end_of_the_orders_ends_the_cluster(fake: Cluster) -> None:
    assert cluster.run(io.StringIO(order().to_line() + "\n"), lambda _: None) == 0
    assert fake.calls[-2:] == ["serve.shutdown", "ray.shutdown"]


def test_wrong_settings_are_reported_with_their_own_code(fake: Cluster) -> None:
    events: list[Event] = []
    wrong = Order(settings={"http_port": 0}, address="", ray_dir="", log_level="INFO")
    assert cluster.run(io.StringIO(wrong.to_line()), events.append) == 1
    assert events[0].code == "SYSTEM_CONFIG_INVALID"
    assert fake.calls == []


@pytest.mark.parametrize(
    ("address", "message"),
    [("", "ConnectionError: no such cluster"), ("far:6379", "cannot join Ray at far:6379: no such cluster")],
)
def test_a_ray_that_does_not_start_is_reported_with_its_reason(
    fake: Cluster, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("no such cluster")

    monkeypatch.setattr(cluster.ray, "init", refuse)
    events: list[Event] = []
    assert cluster.run(io.StringIO(order(address=address).to_line()), events.append) == 1
    assert events[0].code == "SYSTEM_START_FAILED"
    assert events[0].message.startswith(message)
    assert fake.calls == []


def test_a_reader_that_is_gone_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

    cluster.reporter(Gone())(Event(Stage.RAY))


def test_events_are_lines() -> None:
    stream = io.StringIO()
    cluster.reporter(stream)(Event(Stage.RAY, address="a"))
    assert Event.from_line(stream.getvalue()) == Event(Stage.RAY, address="a")
