"""A runner replica with the ONNX runtime: it becomes what control says, tells of it, and answers for what it has."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from trygon.deployments import runner as runner_module
from trygon.deployments.instance import ModelInstance
from trygon.deployments.messages import Desired, InferCall, ReplicaReport
from trygon.deployments.runner import Runner
from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.onnx import OnnxModel
from trygon.models.repository import ModelRepository
from trygon.models.tensors import Datatype, InferRequest, InferResponse, Tensor
from trygon.models.versions import ModelState, VersionSpec

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "models"
LONG_S = 1000


def digits() -> VersionSpec:
    (found,) = ModelRepository([EXAMPLES]).entry("digits_onnx").specs
    return found


class Control:
    """Control's handle: it wants what `wanted` says, and collects reports."""

    def __init__(self, *wanted: VersionSpec, served: bool = False) -> None:
        self.wanted = Desired("term", 1, wanted, served)
        self.reports: asyncio.Queue[ReplicaReport] = asyncio.Queue()
        self.deaf = False
        self.desired = self.report = self

    async def remote(self, news: Any) -> Any:
        if isinstance(news, ReplicaReport):
            self.reports.put_nowait(news)
            if self.deaf:
                raise RuntimeError("no replica")
            return None
        assert news == "onnx-cpu"
        return self.wanted

    async def heard(self, condition: Callable[[ReplicaReport], bool]) -> ReplicaReport:
        async with asyncio.timeout(30):
            while not condition(report := await self.reports.get()):
                pass
        return report


def alone(run: Callable[[list[Any]], Awaitable[list[Any]]], **_: object) -> Callable[[Any], Awaitable[Any]]:
    """Stand in for `serve.batch`: each item is a batch."""

    async def run_one(item: Any) -> Any:
        (result,) = await run([item])
        return result

    return run_one


async def make(control: Control, runner: type[Runner] = Runner, **options: Any) -> Runner:
    """Return a runner, constructed as Ray Serve does it."""
    made = runner.__new__(runner)
    given = {"threads": 1, "load_timeout_s": LONG_S, "default_max_batch_size": 4, "heartbeat_s": LONG_S} | options
    await made.__init__(  # type: ignore[misc]  # a constructor that is awaited
        "onnx-cpu", replica="r", connect=lambda _: control, batch=alone, **given
    )
    return made


def call(*sizes: int, model: str = "digits_onnx", generation: str = "") -> InferCall:
    tensors = [Tensor("image", Datatype.FP32, (1, size), bytes(4 * size)) for size in sizes]
    return InferCall("call", model, 1, generation, tuple(InferRequest(model, (tensor,)) for tensor in tensors))


def is_ready(report: ReplicaReport) -> bool:
    return [status.state for status in report.statuses] == [ModelState.READY]


async def test_a_new_replica_asks_what_is_wanted_and_tells_what_became_of_it() -> None:
    control = Control(digits())
    runner = await make(control)
    report = await control.heard(is_ready)
    assert (report.replica, report.runner, report.specs) == ("r", "onnx-cpu", (digits(),))
    assert not report.serving
    (outcome,) = await runner.infer(call(64))
    assert isinstance(outcome, InferResponse)
    assert [tensor.shape for tensor in outcome.outputs] == [(1, 10)]
    report = await runner.report()
    assert report.serving
    assert report.statistics[0].inference_count == 1


async def test_a_replica_beside_others_has_loaded_before_it_takes_calls() -> None:
    runner = await make(Control(digits(), served=True))
    assert is_ready(await runner.report())


async def test_a_request_that_comes_while_the_first_load_goes_on_waits_for_it() -> None:
    runner = await make(Control(digits()))
    (outcome,) = await runner.infer(call(64))
    assert isinstance(outcome, InferResponse)


async def test_each_request_of_a_call_has_its_own_outcome() -> None:
    runner = await make(Control(digits(), served=True))
    good, bad, also_good = await runner.infer(call(64, 63, 64))
    assert isinstance(good, InferResponse)
    assert isinstance(also_good, InferResponse)
    assert isinstance(bad, InferenceError)
    assert bad.code is ErrorCode.TENSOR_SHAPE_MISMATCH


async def test_a_version_that_is_not_here_is_refused_for_each_request() -> None:
    runner = await make(Control())
    outcomes = await runner.infer(call(64, 64, model="other"))
    assert [outcome.code for outcome in outcomes if isinstance(outcome, InferenceError)] == (
        [ErrorCode.MODEL_NOT_READY] * 2
    )


async def test_the_newest_wish_counts_and_a_new_control_begins_anew() -> None:
    runner = await make(Control())
    report = await runner.apply(Desired("term", 3, (digits(),)))
    assert report.specs == (digits(),)
    assert (await runner.apply(Desired("term", 2, ()))).specs == (digits(),)
    assert (await runner.apply(Desired("another", 0, ()))).specs == ()


async def test_later_reports_have_higher_numbers() -> None:
    runner = await make(Control())
    numbers = [(await runner.report()).sequence for _ in range(3)]
    assert numbers == sorted(set(numbers))


async def test_changes_of_one_turn_are_told_together() -> None:
    control = Control()
    runner = await make(control)
    await runner.apply(Desired("term", 2, (digits(), replace(digits(), version=2))))
    report = await control.heard(lambda report: len(report.statuses) == 2)
    assert {status.state for status in report.statuses} == {ModelState.LOADING}


async def test_a_control_that_is_restarting_does_no_harm() -> None:
    control = Control(digits())
    control.deaf = True
    await make(control)
    assert is_ready(await control.heard(is_ready))


async def test_a_replica_is_heard_of_although_nothing_changes() -> None:
    control = Control()
    await make(control, heartbeat_s=0)
    first, second = await control.heard(lambda _: True), await control.heard(lambda _: True)
    assert second.sequence > first.sequence


async def test_the_autoscaler_hears_of_versions_until_they_have_left() -> None:
    control = Control(digits(), served=True)
    runner = await make(control)
    assert await runner.record_autoscaling_stats() == {"wanted_versions": 1.0}
    await runner.apply(Desired("term", 2, ()))
    await control.heard(lambda report: not report.statuses)
    assert await runner.record_autoscaling_stats() == {"wanted_versions": 0.0}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("input [ { name: 'image' data_type: TYPE_INT32 dims: [ 64 ] } ]", "image"),
        ("model_warmup [ { name: 'w' batch_size: 1 } ]", "warm"),
    ],
)
async def test_a_load_that_fails_late_gives_the_memory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str, reason: str
) -> None:
    (tmp_path / "spoilt" / "1").mkdir(parents=True)
    (tmp_path / "spoilt" / "1" / "model.onnx").write_bytes((EXAMPLES / "digits_onnx/1/model.onnx").read_bytes())
    (tmp_path / "spoilt" / "config.pbtxt").write_text(f"max_batch_size: 4 {spoil}")
    closed: list[OnnxModel] = []
    monkeypatch.setattr(OnnxModel, "close", lambda model: closed.append(model))  # noqa: PLW0108 - a built-in is no method
    (spec,) = ModelRepository([tmp_path]).entry("spoilt").specs
    control = Control(spec)
    await make(control)
    report = await control.heard(lambda report: report.statuses[0].state is ModelState.UNAVAILABLE)
    assert reason in report.statuses[0].reason
    assert len(closed) == 1


async def test_a_warmup_runs_before_the_model_is_ready_and_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "warm" / "1").mkdir(parents=True)
    (tmp_path / "warm" / "1" / "model.onnx").write_bytes((EXAMPLES / "digits_onnx/1/model.onnx").read_bytes())
    image = "inputs { key: 'image' value { data_type: TYPE_FP32 dims: [ 64 ] zero_data: true } }"
    warmup = f"model_warmup [ {{ name: 'zeros' batch_size: 2 {image} }} ]"
    (tmp_path / "warm" / "config.pbtxt").write_text(f"max_batch_size: 4 {warmup}")
    shapes: list[tuple[int, ...]] = []
    run = OnnxModel.run

    def watched(self: OnnxModel, inputs: Any, outputs: Any) -> Any:
        shapes.append(inputs["image"].shape)
        return run(self, inputs, outputs)

    monkeypatch.setattr(OnnxModel, "run", watched)
    runner = await make(Control(*ModelRepository([tmp_path]).entry("warm").specs, served=True))
    report = await runner.report()
    assert is_ready(report)
    assert shapes == [(2, 64)]
    assert report.statistics[0].inference_count == 0


async def test_a_model_whose_instance_cannot_be_made_gives_the_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[OnnxModel] = []
    monkeypatch.setattr(OnnxModel, "close", lambda model: closed.append(model))  # noqa: PLW0108 - a built-in is no method

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no threads left")

    monkeypatch.setattr(ModelInstance, "__init__", refuse)
    control = Control(digits())
    await make(control)
    report = await control.heard(lambda report: report.statuses[0].state is ModelState.UNAVAILABLE)
    assert report.statuses[0].reason == "RuntimeError: no threads left"
    assert len(closed) == 1


async def test_an_unloaded_model_is_gone_from_memory() -> None:
    loaded: list[weakref.ref[ModelInstance]] = []

    class Watched(Runner):
        def _load(self, spec: VersionSpec) -> ModelInstance:
            instance = super()._load(spec)
            loaded.append(weakref.ref(instance))
            return instance

    control = Control()
    runner = await make(control, Watched)
    for number in range(3):
        await runner.apply(Desired("term", 2 * number + 2, (digits(),)))
        await runner.infer(call(64))
        told = await runner.apply(Desired("term", 2 * number + 3, ()))
        await control.heard(lambda report, told=told: report.sequence > told.sequence and not report.statuses)  # type: ignore[misc]  # a lambda's default
    assert len(loaded) == 3
    async with asyncio.timeout(30):
        while any(instance() for instance in loaded):
            gc.collect()
            await asyncio.sleep(0)  # timers and tasks that have just ended let go of it in the loop's next turns


async def test_threads_are_shared_out_over_the_instances_of_a_model() -> None:
    spec = digits()
    entry = ModelRepository([EXAMPLES]).entry("digits_onnx")
    entry.config.instance_group.add(count=2)
    wide = replace(spec, config=entry.config.SerializeToString(), generation="wide")
    control = Control(wide, served=True)
    runner = await make(control, threads=3)
    assert is_ready(await runner.report())


async def test_outside_of_a_replica_there_is_no_id() -> None:
    runner = Runner.__new__(Runner)
    with pytest.raises(RayServeException):
        await runner.__init__(  # type: ignore[misc]  # a constructor that is awaited
            "onnx-cpu", threads=1, load_timeout_s=LONG_S, default_max_batch_size=4
        )


async def test_a_runtime_that_cannot_be_imported_is_the_reason_of_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"libcudart of {name} is missing")

    monkeypatch.setattr(runner_module, "backend", fail)
    runner = await make(Control(digits(), served=True))
    (status,) = (await runner.report()).statuses
    assert status.state is ModelState.UNAVAILABLE
    assert "libcudart of onnxruntime is missing" in status.reason


async def test_a_call_that_is_over_cannot_be_abandoned_any_more() -> None:
    runner = await make(Control(digits(), served=True))
    waiting = asyncio.create_task(runner.infer(call(64, 64)))
    await asyncio.sleep(0)
    await runner.abandon([("call", 1), ("unknown", 7)])
    first, second = await waiting
    assert isinstance(first, InferResponse)
    assert isinstance(second, InferenceError)
    await runner.abandon([("call", 0)])
