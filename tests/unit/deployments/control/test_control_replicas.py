"""Replicas come, hang and die, and control itself is started anew: what serves goes on serving."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trygon.deployments.control import Pace
from trygon.deployments.instance import ModelInstance
from trygon.deployments.runner import Runner
from trygon.models.versions import VersionSpec
from trygon.settings import ModelControlMode

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "models" / "digits_onnx"
READY = {"digits_onnx 1": "READY"}
NEVER = Pace(round_s=1000, starting_s=1000, watch_s=20)


class GatedRunner(Runner):
    """A runner whose loads wait at a gate."""

    gate = threading.Event()

    def _load(self, spec: VersionSpec) -> ModelInstance:
        self.gate.wait(30)
        return super()._load(spec)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    GatedRunner.gate.clear()
    yield GatedRunner.gate
    GatedRunner.gate.set()


async def test_a_replica_that_dies_takes_the_model_with_it_and_a_new_one_brings_it_back(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states == READY)
    await control.statistics()
    (replica,) = cluster.deployments["onnx-cpu"].replicas
    cluster.scales = False
    cluster.kill("onnx-cpu", replica)
    await cluster.until(lambda states: states == {"digits_onnx 1": "LOADING"})
    assert await cluster.missing() == {"digits_onnx": "waiting for a replica"}
    await cluster.add_replica()
    await cluster.until(lambda states: states == READY)
    assert await cluster.missing() == {}


async def test_one_of_two_replicas_is_enough(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states == READY)
    await cluster.add_replica()
    await control.statistics()
    cluster.kill("onnx-cpu", next(iter(cluster.deployments["onnx-cpu"].replicas)))
    await control.statistics()
    assert await cluster.states() == READY


async def test_a_second_replica_keeps_out_of_traffic_while_it_loads(cluster: Any, gate: threading.Event) -> None:
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states == READY)
    cluster.runner = GatedRunner
    joining = asyncio.create_task(cluster.make_replica())
    heard = asyncio.create_task(cluster.control.statistics())
    await heard
    assert not joining.done()
    gate.set()
    _, runner = await joining
    assert [str(status.state) for status in (await runner.report()).statuses] == ["READY"]


async def test_the_first_replica_takes_calls_at_once(cluster: Any, gate: threading.Event) -> None:
    cluster.scales = False
    cluster.runner = GatedRunner
    await cluster.start(ModelControlMode.NONE)
    await cluster.add_replica()
    await cluster.until(lambda states: states == {"digits_onnx 1": "LOADING"})
    gate.set()
    await cluster.until(lambda states: states == READY)


async def test_a_model_is_not_ready_while_its_only_replica_takes_no_calls(cluster: Any) -> None:
    cluster.scales = False
    control = await cluster.start(ModelControlMode.NONE, pace=replace(NEVER, starting_s=0.01))
    replica, runner = await cluster.make_replica()
    routes = await control.routes()
    while routes.rows[0].status.reason != "waiting for its replica to take requests":
        routes = await control.watch(routes.term, routes.revision) or routes
    assert str(routes.rows[0].status.state) == "LOADING"
    assert await cluster.missing() == {"digits_onnx": "waiting for its replica to take requests"}
    cluster.deployments["onnx-cpu"].add(replica, runner)
    await cluster.until(lambda states: states == READY)


async def test_a_late_report_of_a_replica_that_is_gone_counts_no_more(cluster: Any) -> None:
    cluster.scales = False
    control = await cluster.start(ModelControlMode.NONE)
    replica = await cluster.add_replica()
    await cluster.until(lambda states: states == READY)
    late = await cluster.deployments["onnx-cpu"].replicas[replica].report()
    await control.statistics()
    cluster.kill("onnx-cpu", replica)
    await cluster.until(lambda states: states != READY)
    await control.report(late)
    assert await cluster.states() == {"digits_onnx 1": "LOADING"}


async def test_reports_that_overtake_each_other_do_no_harm(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.NONE, pace=replace(NEVER, starting_s=0.01))
    await cluster.until(lambda states: states == READY)
    (runner,) = cluster.deployments["onnx-cpu"].replicas.values()
    newer = await runner.report()
    await control.report(newer)
    await control.report(replace(newer, statuses=(), sequence=newer.sequence - 1))
    assert await cluster.states() == READY


async def test_a_replica_that_hangs_does_not_take_the_others_for_dead(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states == READY)
    await cluster.add_replica(heartbeat_s=0)
    cluster.deployments["onnx-cpu"].hung = {next(iter(cluster.deployments["onnx-cpu"].replicas))}
    await control.statistics()
    assert await cluster.states() == READY


async def test_a_control_that_is_started_anew_learns_what_was_loaded(cluster: Any) -> None:
    control = await cluster.start()
    await control.load("digits_onnx", None, None)
    config = json.dumps({"backend": "onnxruntime"})
    files = {"file:1/model.onnx": (EXAMPLE / "1" / "model.onnx").read_bytes()}
    await control.load("sent", config, files)
    before = await control.routes()
    cluster.stop_control()
    (runner,) = cluster.deployments["onnx-cpu"].replicas.values()
    loaded = (await runner.report()).statuses
    control = await cluster.start()
    await cluster.until(lambda states: set(states.values()) == {"READY"})
    after = await control.routes()
    assert after.term != before.term
    assert [status.generation for status in (await runner.report()).statuses] == [item.generation for item in loaded]
    await control.unload("sent")
    assert not (cluster.overrides / "sent").exists()


async def test_a_control_that_is_started_anew_in_mode_none_wants_the_repository(cluster: Any) -> None:
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states == READY)
    cluster.stop_control()
    cluster.write("fresh", 1)
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states == {**READY, "fresh 1": "READY"})


async def test_a_model_that_moves_between_generations_at_once_ends_in_the_last(cluster: Any) -> None:
    control = await cluster.start()
    labels = cluster.repository / "digits_onnx" / "labels.txt"
    for word in ("first", "second", "third"):
        labels.write_text("\n".join(f"{word}{number}" for number in range(10)))
        routes = await control.load("digits_onnx", None, None)
    assert routes.rows[0].status.description.labels["probabilities"][0] == "third0"


async def test_loading_and_unloading_again_and_again_leaves_nothing_behind(cluster: Any) -> None:
    control = await cluster.start()
    for _ in range(5):
        await control.load("digits_onnx", None, None)
        await control.unload("digits_onnx")
    (runner,) = cluster.deployments["onnx-cpu"].replicas.values()
    report = await runner.report()
    assert (report.specs, report.statuses, report.statistics) == ((), (), ())
    assert await runner.record_autoscaling_stats() == {"wanted_versions": 0.0}
    assert (await control.routes()).rows == ()
