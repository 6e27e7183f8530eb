"""The process that holds Ray, as the command sees it: a real one, which is given an order it must refuse."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trygon.deployments.cluster_process import ClusterProcess, Event, Order, Stage


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ClusterProcess, Path]]:
    """A process whose order holds an impossible port: it fails before it starts Ray."""
    folder = tmp_path_factory.mktemp("cluster")
    order = Order(settings={"http_port": 0}, address="", ray_dir=str(folder / "ray"), log_level="INFO")
    process = ClusterProcess(order, os.environ, folder / "log")
    yield process, folder / "log"
    process.kill()


def test_a_failure_is_reported_with_its_code_and_the_traceback_is_in_the_log(
    refused: tuple[ClusterProcess, Path],
) -> None:
    process, log = refused
    event = process.next_event(timeout_s=120)
    assert event
    assert (event.stage, event.code) == (Stage.FAILED, "SYSTEM_CONFIG_INVALID")
    assert "http_port" in event.message
    assert "Traceback" in log.read_text()


def test_no_event_within_the_time_is_none(refused: tuple[ClusterProcess, Path]) -> None:
    assert refused[0].next_event(timeout_s=0.01) is None


def test_asking_it_to_stop_and_killing_it_work_though_it_has_ended(refused: tuple[ClusterProcess, Path]) -> None:
    process, _ = refused
    process.ask_to_stop()
    process.ask_to_stop()
    process.kill()
    assert process.exit_code is not None


def test_events_and_orders_travel_as_lines() -> None:
    event = Event(Stage.FAILED, code="SYSTEM_INTERNAL", message="two\nlines")
    order = Order(settings={"http_port": 1}, address="auto", ray_dir="", log_level="DEBUG")
    assert "\n" not in event.to_line()
    assert Event.from_line(event.to_line()) == event
    assert Order.from_line(order.to_line()) == order
