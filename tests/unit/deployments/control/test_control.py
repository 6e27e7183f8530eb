"""Control with its runners: what each control mode loads, and what control answers about it."""

import asyncio
from typing import Any

import pytest

from trygon.deployments.control import Pace
from trygon.deployments.fleet import Fleet
from trygon.deployments.messages import InferCall
from trygon.errors import ErrorCode, InferenceError
from trygon.models.repository import ModelRepository, RepositoryScan
from trygon.models.tensors import Datatype, InferRequest, Tensor
from trygon.settings import ModelControlMode

GARBAGE = b"this is no model"
GPU = 'backend: "onnxruntime" instance_group { kind: KIND_GPU }'


async def infer(cluster: Any, model: str, count: int = 1) -> None:
    """Run requests in the first replica of onnx-cpu."""
    (instance, *_) = cluster.deployments["onnx-cpu"].replicas.values()
    request = InferRequest(model, (Tensor("image", Datatype.FP32, (1, 64), bytes(256)),))
    for outcome in await instance.infer(InferCall("call", model, 1, "", (request,) * count)):
        assert not isinstance(outcome, InferenceError), outcome


async def test_mode_none_loads_everything_and_shows_what_is_broken(cluster: Any) -> None:
    cluster.write("good", 1, 2)
    cluster.write("nonsense", 1, content=GARBAGE)
    cluster.write("unreadable", 1, config="max_batch_size: many")
    cluster.write("elsewhere", 1, config=GPU)
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states["good 2"] == "READY" and states["nonsense 1"] == "UNAVAILABLE")
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")
    assert await cluster.states() == {
        "digits_onnx 1": "READY",
        "elsewhere 0": "UNAVAILABLE",
        "good 2": "READY",
        "nonsense 1": "UNAVAILABLE",
        "unreadable 0": "UNAVAILABLE",
    }
    missing = await cluster.missing()
    assert missing.keys() == {"elsewhere", "nonsense", "unreadable"}
    assert "Protobuf parsing failed" in missing["nonsense"]
    assert "config.pbtxt" in missing["unreadable"]
    assert "onnx-cuda" in missing["elsewhere"]


async def test_a_runner_that_nothing_is_wanted_from_gets_no_replica(cluster: Any) -> None:
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")
    assert cluster.deployments["litert-cpu"].replicas == {}


async def test_a_version_whose_runner_has_no_replica_waits_for_one(cluster: Any) -> None:
    cluster.scales = False
    await cluster.start(ModelControlMode.NONE)
    assert await cluster.states() == {"digits_onnx 1": "LOADING"}
    assert await cluster.missing() == {"digits_onnx": "waiting for a replica"}


async def test_versions_that_a_policy_names_and_the_folder_lacks_are_unavailable(cluster: Any) -> None:
    cluster.write("chosen", 1, config="version_policy { specific { versions: [1, 7] } }")
    await cluster.start(ModelControlMode.EXPLICIT, "chosen")
    await cluster.until(lambda states: states["chosen 1"] == "READY")
    assert await cluster.states() == {
        "chosen 1": "READY",
        "chosen 7": "UNAVAILABLE",
        "digits_onnx 1": "UNAVAILABLE",
    }
    assert "no folder '7'" in await cluster.reason("chosen", 7)
    assert await cluster.missing() == {}


@pytest.mark.parametrize("mode", [ModelControlMode.NONE, ModelControlMode.POLL])
async def test_other_modes_refuse_to_load_and_unload(cluster: Any, mode: ModelControlMode) -> None:
    control = await cluster.start(mode, poll_s=1000)
    for work in (control.load("digits_onnx", None, None), control.unload("digits_onnx")):
        with pytest.raises(InferenceError, match="not allowed in model control mode") as caught:
            await work
        assert caught.value.code is ErrorCode.MODEL_CONTROL_DISABLED


async def test_explicit_mode_loads_what_is_named(cluster: Any) -> None:
    cluster.write("other", 1)
    await cluster.start(ModelControlMode.EXPLICIT, "digits_onnx", "nowhere")
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")
    assert await cluster.states() == {"digits_onnx 1": "READY", "nowhere 0": "UNAVAILABLE", "other 1": "UNAVAILABLE"}
    assert await cluster.reason("other") == "unloaded"
    assert await cluster.missing() == {"nowhere": "failed to load 'nowhere': no such model in the repository"}


async def test_a_star_loads_everything_in_explicit_mode(cluster: Any) -> None:
    cluster.write("other", 1)
    await cluster.start(ModelControlMode.EXPLICIT, "*")
    await cluster.until(lambda states: set(states.values()) == {"READY"})
    assert len(await cluster.states()) == 2


async def test_the_index_shows_what_is_known_while_the_repository_cannot_be_read(cluster: Any) -> None:
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")
    cluster.repository.rename(cluster.root / "moved")
    assert await cluster.states() == {"digits_onnx 1": "READY"}


async def test_a_faulty_model_that_nobody_asked_for_shows_its_fault(cluster: Any) -> None:
    cluster.write("unreadable", 1, config="max_batch_size: many")
    await cluster.start(ModelControlMode.EXPLICIT)
    assert "config.pbtxt" in await cluster.reason("unreadable", 0)
    assert await cluster.missing() == {}


async def test_whoever_watches_hears_of_a_change_or_of_nothing(cluster: Any) -> None:
    control = await cluster.start(pace=Pace(round_s=1000, watch_s=0.01))
    routes = await control.routes()
    assert await control.watch(routes.term, routes.revision) is None
    assert await control.watch("an earlier control", routes.revision) == routes
    assert await control.watch(routes.term, routes.revision - 1) == routes


async def test_a_load_tells_watchers_before_a_replica_has_answered(cluster: Any) -> None:
    cluster.scales = False
    control = await cluster.start()
    routes = await control.routes()
    watching = asyncio.create_task(control.watch(routes.term, routes.revision))
    loading = asyncio.create_task(control.load("digits_onnx", None, None))
    news = await watching
    assert [str(row.status.state) for row in news.rows] == ["LOADING"]
    loading.cancel()


async def test_statistics_are_merged_over_replicas_and_outlive_them(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")
    await infer(cluster, "digits_onnx", 3)
    first = next(iter(cluster.deployments["onnx-cpu"].replicas))
    second = await cluster.add_replica()
    cluster.deployments["onnx-cpu"].replicas[first] = cluster.deployments["onnx-cpu"].replicas.pop(first)
    await infer(cluster, "digits_onnx", 2)
    (statistics,) = await control.statistics()
    assert statistics.inference_count == 5
    cluster.kill("onnx-cpu", second)
    (statistics,) = await control.statistics()
    assert statistics.inference_count == 5
    assert statistics.success.count == 5


async def test_counting_changes_nothing_that_an_ingress_should_know(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")
    revision = (await control.routes()).revision
    await infer(cluster, "digits_onnx")
    await control.statistics()
    assert (await control.routes()).revision == revision


async def test_a_look_at_the_repository_that_fails_is_not_the_last(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    scan = ModelRepository.scan

    def fail_once(self: ModelRepository) -> RepositoryScan:
        looks.append(1)
        if len(looks) == 2:
            raise MemoryError("none left")
        return scan(self)

    monkeypatch.setattr(ModelRepository, "scan", fail_once)
    await cluster.start(ModelControlMode.POLL)
    cluster.write("fresh", 1)
    await cluster.until(lambda states: states.get("fresh 1") == "READY")
    assert len(looks) > 2


async def test_a_round_that_fails_is_not_the_last(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    tell = Fleet.tell

    async def fail_once(self: Fleet) -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise RuntimeError("out of file descriptors")
        await tell(self)

    monkeypatch.setattr(Fleet, "tell", fail_once)
    await cluster.start(ModelControlMode.NONE)
    await cluster.until(lambda states: states["digits_onnx 1"] == "READY")


async def test_a_repository_that_is_no_folder_stops_the_start(cluster: Any) -> None:
    cluster.repository = cluster.root / "nowhere"
    with pytest.raises(InferenceError, match="is no folder"):
        await cluster.start()
