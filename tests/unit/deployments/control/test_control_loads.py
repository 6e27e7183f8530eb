"""Loads and unloads on a caller's request: what they change, what they leave alone, and how long they may take."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trygon.deployments.control import Pace
from trygon.deployments.instance import ModelInstance
from trygon.deployments.messages import Desired, ReplicaReport
from trygon.deployments.runner import Runner
from trygon.errors import ErrorCode, InferenceError
from trygon.models.versions import VersionSpec
from trygon.settings import ModelControlMode

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "models" / "digits_onnx"
MODEL = (EXAMPLE / "1" / "model.onnx").read_bytes()
GARBAGE = b"this is no model"
PATIENCE_S = 0.05


class GatedRunner(Runner):
    """A runner whose loads wait at a gate; `begun` says that one got there."""

    gate = threading.Event()
    begun = threading.Event()

    def _load(self, spec: VersionSpec) -> ModelInstance:
        self.begun.set()
        self.gate.wait(30)
        return super()._load(spec)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    GatedRunner.gate.clear()
    GatedRunner.begun.clear()
    yield GatedRunner.gate
    GatedRunner.gate.set()


async def refusal(work: Any) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        await work
    return caught.value


async def test_a_load_returns_the_routes_that_show_the_model(cluster: Any) -> None:
    control = await cluster.start()
    routes = await control.load("digits_onnx", None, None)
    assert [(row.status.model, str(row.status.state), row.runner) for row in routes.rows] == [
        ("digits_onnx", "READY", "onnx-cpu")
    ]
    assert routes.missing == {}


async def test_a_load_of_what_is_loaded_changes_nothing(cluster: Any) -> None:
    control = await cluster.start()
    first = await control.load("digits_onnx", None, None)
    again = await control.load("digits_onnx", None, None)
    assert again.rows == first.rows


async def test_a_reload_takes_new_files(cluster: Any) -> None:
    control = await cluster.start()
    (before,) = (await control.load("digits_onnx", None, None)).rows
    (cluster.repository / "digits_onnx" / "labels.txt").write_text("\n".join("abcdefghij"))
    (after,) = (await control.load("digits_onnx", None, None)).rows
    assert before.status.generation != after.status.generation
    assert after.status.description
    assert after.status.description.labels["probabilities"][:2] == ("a", "b")


async def test_a_broken_reload_says_why_and_the_old_generation_serves_on(cluster: Any) -> None:
    control = await cluster.start()
    (before,) = (await control.load("digits_onnx", None, None)).rows
    cluster.write("digits_onnx", 1, content=GARBAGE)
    for _ in range(2):
        error = await refusal(control.load("digits_onnx", None, None))
        assert error.code is ErrorCode.MODEL_LOAD_FAILED
        assert error.message.startswith("failed to load 'digits_onnx': ")
        assert "Protobuf parsing failed" in error.message
    (row,) = (await control.routes()).rows
    assert (row.status.generation, str(row.status.state)) == (before.status.generation, "READY")
    assert "Protobuf parsing failed" in row.status.reason
    assert await cluster.missing() == {}
    cluster.write("digits_onnx", 1)
    (row,) = (await control.load("digits_onnx", None, None)).rows
    assert row.status.reason == ""
    assert row.status.generation != before.status.generation


async def test_a_replica_that_joins_after_a_broken_load_gets_what_serves(cluster: Any) -> None:
    control = await cluster.start()
    config = json.dumps({"backend": "onnxruntime"})
    await control.load("sent", config, {"file:1/model.onnx": MODEL})
    await refusal(control.load("sent", config, {"file:1/model.onnx": GARBAGE}))
    second = await cluster.add_replica()
    first = next(iter(cluster.deployments["onnx-cpu"].replicas))
    report = await cluster.deployments["onnx-cpu"].replicas[second].report()
    assert [str(status.state) for status in report.statuses] == ["READY"]
    cluster.kill("onnx-cpu", first)
    await control.statistics()
    assert (await cluster.states())["sent 1"] == "READY"


async def test_a_model_that_never_served_is_refused_and_not_missing(cluster: Any) -> None:
    cluster.write("nonsense", 1, content=GARBAGE)
    control = await cluster.start()
    for _ in range(2):
        error = await refusal(control.load("nonsense", None, None))
        assert error.code is ErrorCode.MODEL_LOAD_FAILED
    assert (await cluster.states())["nonsense 1"] == "UNAVAILABLE"
    assert "Protobuf parsing failed" in await cluster.reason("nonsense")
    assert await cluster.missing() == {}
    report = await next(iter(cluster.deployments["onnx-cpu"].replicas.values())).report()
    assert report.specs == ()
    error = await refusal(control.unload("nonsense"))
    assert error.code is ErrorCode.MODEL_NOT_FOUND


async def test_a_generation_that_failed_is_tried_again(cluster: Any) -> None:
    loads: list[str] = []

    class Flaky(Runner):
        def _load(self, spec: VersionSpec) -> ModelInstance:
            loads.append(spec.generation)
            if len(loads) < 3:
                raise InferenceError(ErrorCode.DEVICE_OUT_OF_MEMORY, "no memory left")
            return super()._load(spec)

    cluster.runner = Flaky
    control = await cluster.start()
    for _ in range(2):
        assert "no memory left" in (await refusal(control.load("digits_onnx", None, None))).message
    routes = await control.load("digits_onnx", None, None)
    assert [str(row.status.state) for row in routes.rows] == ["READY"]
    assert len(loads) == 3


async def test_a_model_wanted_from_the_start_stays_wanted_when_it_fails_again(cluster: Any) -> None:
    cluster.write("nonsense", 1, content=GARBAGE)
    control = await cluster.start(ModelControlMode.EXPLICIT, "nonsense")
    await cluster.until(lambda states: states["nonsense 1"] == "UNAVAILABLE")
    await refusal(control.load("nonsense", None, None))
    assert "Protobuf parsing failed" in (await cluster.missing())["nonsense"]


async def test_a_bad_version_leaves_the_good_one_serving_and_shows_its_reason(cluster: Any) -> None:
    cluster.write("half", 1, config="version_policy { all {} }")
    control = await cluster.start()
    await control.load("half", None, None)
    cluster.write("half", 2, content=GARBAGE)
    error = await refusal(control.load("half", None, None))
    assert "Protobuf parsing failed" in error.message
    states = await cluster.states()
    assert (states["half 1"], states["half 2"]) == ("READY", "UNAVAILABLE")


async def test_a_newer_version_takes_the_place_of_the_older(cluster: Any) -> None:
    cluster.write("growing", 1)
    control = await cluster.start()
    await control.load("growing", None, None)
    cluster.write("growing", 2)
    routes = await control.load("growing", None, None)
    assert {row.status.version for row in routes.rows if str(row.status.state) == "READY"} == {2}
    await cluster.until(lambda states: states == {"growing 2": "READY"})


async def test_a_model_may_come_with_its_files_and_they_go_with_it(cluster: Any) -> None:
    control = await cluster.start()
    for count in (1, 2, 3):
        config = json.dumps({"backend": "onnxruntime", "max_batch_size": count})
        (row,) = (await control.load("sent", config, {"file:1/model.onnx": MODEL})).rows
        assert row.status.description
        assert row.status.description.max_batch_size == count
        assert len(list((cluster.overrides / "sent").iterdir())) == 1
    await control.unload("sent")
    assert not (cluster.overrides / "sent").exists()
    assert "sent 1" not in await cluster.states()


async def test_files_of_a_load_that_fails_are_removed(cluster: Any) -> None:
    control = await cluster.start()
    config = {"backend": "onnxruntime"}
    await refusal(control.load("sent", json.dumps(config), {"file:1/model.onnx": GARBAGE}))
    gpu = json.dumps({**config, "instance_group": [{"kind": "KIND_GPU"}]})
    error = await refusal(control.load("sent", gpu, {"file:1/model.onnx": MODEL}))
    assert error.code is ErrorCode.DEVICE_UNAVAILABLE
    assert "add it to the setting 'runners'" in error.message
    assert not (cluster.overrides / "sent").exists()


@pytest.mark.parametrize("name", ["../digits_onnx", "", ".", "a/b", "a\0b", "x" * 300])
async def test_a_hostile_name_is_refused_before_anything_else(cluster: Any, name: str) -> None:
    control = await cluster.start()
    for work in (control.load(name, None, None), control.unload(name)):
        assert (await refusal(work)).code is ErrorCode.MODEL_NAME_INVALID


async def test_a_model_that_is_nowhere_is_neither_loaded_nor_unloaded(cluster: Any) -> None:
    control = await cluster.start()
    for number in range(20):
        error = await refusal(control.load(f"nowhere{number}", None, None))
        assert error.code is ErrorCode.MODEL_NOT_FOUND
        assert error.message == f"failed to load 'nowhere{number}': no such model in the repository"
    error = await refusal(control.unload("digits_onnx"))
    assert error.code is ErrorCode.MODEL_NOT_FOUND
    assert error.message == "failed to unload 'digits_onnx': no such model is loaded"
    assert len(control._turns) == 0  # noqa: SLF001 - what nobody can see from outside


async def test_an_unloaded_model_leaves_every_replica(cluster: Any) -> None:
    control = await cluster.start()
    await control.load("digits_onnx", None, None)
    await cluster.add_replica()
    routes = await control.unload("digits_onnx")
    assert routes.rows == ()
    assert (await cluster.states(), await cluster.reason("digits_onnx")) == (
        {"digits_onnx 1": "UNAVAILABLE"},
        "unloaded",
    )
    for replica in cluster.deployments["onnx-cpu"].replicas.values():
        assert (await replica.report()).statuses == ()
    assert await control.statistics() == []


async def test_loads_of_one_model_come_after_each_other_and_of_others_beside_them(
    cluster: Any, gate: threading.Event
) -> None:
    cluster.runner = GatedRunner
    cluster.write("other", 1)
    control = await cluster.start()
    first = asyncio.create_task(control.load("digits_onnx", None, None))
    await asyncio.to_thread(GatedRunner.begun.wait, 30)
    second = asyncio.create_task(control.load("digits_onnx", None, None))
    third = asyncio.create_task(control.unload("digits_onnx"))
    beside = asyncio.create_task(control.load("other", None, None))
    await cluster.until(lambda states: states.get("other 1") == "LOADING")
    assert not any(task.done() for task in (first, second, third, beside))
    gate.set()
    for task in (first, second):
        assert "digits_onnx" in {row.status.model for row in (await task).rows}
    assert "other" not in (await beside).missing
    await third
    assert (await cluster.states())["digits_onnx 1"] == "UNAVAILABLE"


async def test_whoever_waits_behind_a_load_that_hangs_is_told_in_time(cluster: Any) -> None:
    cluster.load_timeout_s = PATIENCE_S
    control = await cluster.start(pace=Pace(round_s=1000, settle_margin_s=0))
    async with control._turns.take("digits_onnx", timeout_s=1):  # noqa: SLF001 - stands for a load under way
        for work, verb in (
            (control.load("digits_onnx", None, None), "load"),
            (control.unload("digits_onnx"), "unload"),
        ):
            error = await refusal(work)
            assert error.code is ErrorCode.MODEL_LOAD_TIMEOUT
            assert (
                error.message == f"failed to {verb} 'digits_onnx': an earlier load or unload of it is still under way"
            )


async def test_a_load_that_the_runner_gives_up_is_a_failure_with_its_reason(
    cluster: Any, gate: threading.Event
) -> None:
    class HangingRunner(Runner):
        def _load(self, spec: VersionSpec) -> ModelInstance:
            gate.wait(30)
            raise MemoryError(spec.model)

    cluster.runner = HangingRunner
    cluster.load_timeout_s = PATIENCE_S
    control = await cluster.start()
    error = await refusal(control.load("digits_onnx", None, None))
    assert error.code is ErrorCode.MODEL_LOAD_FAILED
    assert "did not end within 0.05 s" in error.message


async def test_a_runner_without_replicas_lets_a_load_wait_no_longer_than_allowed(cluster: Any) -> None:
    cluster.scales = False
    cluster.load_timeout_s = PATIENCE_S
    control = await cluster.start(pace=Pace(round_s=0.01, settle_margin_s=0))
    error = await refusal(control.load("digits_onnx", None, None))
    assert error.code is ErrorCode.MODEL_LOAD_TIMEOUT
    assert error.message == "failed to load 'digits_onnx': waiting for a replica"
    assert await cluster.missing() == {}


async def test_an_unload_that_a_replica_does_not_follow_says_so(cluster: Any) -> None:
    class StubbornRunner(Runner):
        async def apply(self, desired: Desired) -> ReplicaReport:
            return await (super().apply(desired) if desired.specs else self.report())

    cluster.runner = StubbornRunner
    control = await cluster.start()
    await control.load("digits_onnx", None, None)
    cluster.stop_control()
    cluster.load_timeout_s = PATIENCE_S
    control = await cluster.start()
    error = await refusal(control.unload("digits_onnx"))
    assert error.code is ErrorCode.MODEL_LOAD_TIMEOUT
    assert error.message == "failed to unload 'digits_onnx': a replica has not let go of it within 0.05 s"
    assert await cluster.states() == {"digits_onnx 1": "UNLOADING"}


async def test_a_load_goes_on_when_its_caller_hangs_up(cluster: Any, gate: threading.Event) -> None:
    cluster.runner = GatedRunner
    cluster.write("nonsense", 1, content=GARBAGE)
    control = await cluster.start()
    caller = asyncio.create_task(control.load("nonsense", None, None))
    await asyncio.to_thread(GatedRunner.begun.wait, 30)
    caller.cancel()
    gate.set()
    # The next in line comes after the end of what nobody waits for.
    error = await refusal(control.unload("nonsense"))
    assert error.code is ErrorCode.MODEL_NOT_FOUND
    assert "Protobuf parsing failed" in await cluster.reason("nonsense")
    assert await cluster.missing() == {}
