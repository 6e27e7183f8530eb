"""A loaded version on a replica: batches, errors and what is counted."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.instance import ModelInstance
from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Signature
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array, Datatype, InferRequest, TensorSpec, from_array, to_array
from trygon.models.versions import ModelDescription, VersionSpec


class Doubler:
    """Doubles its input; counts its batches, and waits for the gate before each."""

    def __init__(self) -> None:
        self.signature = Signature("test", (), (), batches=True)
        self.shapes: list[tuple[int, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert outputs == ["y"]
        assert self.gate.wait(30)
        self.shapes.append(inputs["x"].shape)
        if np.isnan(inputs["x"]).any():
            raise RuntimeError("not a number")
        if (inputs["x"] < 0).any():
            raise InferenceError(ErrorCode.RUNNER_INPUT_REJECTED, "negative")
        return {"y": inputs["x"] * 2}

    def close(self) -> None:
        self.closed = True


def instance(model: Doubler, *, max_batch_size: int = 4) -> ModelInstance:
    shape = (-1, -1) if max_batch_size else (-1,)
    description = ModelDescription(
        "test",
        b"",
        max_batch_size,
        (TensorSpec("x", Datatype.FP32, shape),),
        (TensorSpec("y", Datatype.FP32, shape),),
    )
    spec = VersionSpec("m", 1, "onnx-cpu", "/m", "/m/1", b"", "generation")
    config = ModelConfig(max_batch_size=max_batch_size)
    if max_batch_size:
        config.dynamic_batching.SetInParent()
    return ModelInstance(spec, model, BatchingPolicy.from_config(config, 1), description, batch=one_by_one)


def one_by_one(run: Callable[[list[Any]], Awaitable[list[Any]]], **options: float) -> Callable[[Any], Awaitable[Any]]:
    """Stand in for serve.batch, which works in a replica only: each call is a batch of one."""
    assert options["max_batch_size"] == 1

    async def call(item: Any) -> Any:
        return (await run([item]))[0]

    return call


def request(*values: float, rows: int = 1) -> InferRequest:
    return InferRequest("m", (from_array("x", np.array([values] * rows, dtype=np.float32)),))


async def ask(target: ModelInstance, sent: InferRequest, checked_for: str = "generation") -> list[list[float]]:
    (response,) = await target.outcomes(target.submit([sent], checked_for=checked_for))
    if isinstance(response, InferenceError):
        raise response
    values: list[list[float]] = to_array(response.outputs[0]).tolist()
    return values


async def test_requests_that_wait_together_run_together() -> None:
    model = Doubler()
    target = instance(model)
    model.gate.clear()
    answers = [asyncio.ensure_future(ask(target, request(number))) for number in range(5)]
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*answers) == [[[0]], [[2]], [[4]], [[6]], [[8]]]
    assert max(shape[0] for shape in model.shapes) > 1
    assert max(shape[0] for shape in model.shapes) <= 4
    statistics = target.statistics
    assert statistics.inference_count == 5
    assert statistics.execution_count == len(model.shapes)
    assert statistics.success.count == statistics.queue.count == statistics.compute_infer.count == 5
    assert sum(rows * batch.compute_infer.count for rows, batch in statistics.batches.items()) == 5
    assert statistics.last_inference > 0
    (scheduler,) = statistics.schedulers
    assert (scheduler.waiting_requests, scheduler.running, scheduler.hold_enabled) == (0, 0, True)
    await target.close()


async def test_requests_of_other_shapes_run_apart() -> None:
    model = Doubler()
    target = instance(model)
    sent = [request(1), request(1, 2), request(3), request(3, 4)]
    assert await asyncio.gather(*(ask(target, one) for one in sent)) == [[[2]], [[2, 4]], [[6]], [[6, 8]]]
    assert {shape[1] for shape in model.shapes} == {1, 2}
    await target.close()


async def test_rows_count_against_the_largest_batch() -> None:
    model = Doubler()
    target = instance(model)
    await asyncio.gather(*(ask(target, request(number, rows=3)) for number in range(4)))
    assert {shape[0] for shape in model.shapes} == {3}
    assert target.statistics.inference_count == 12
    await target.close()


async def test_a_model_that_does_not_batch_runs_each_request_alone() -> None:
    model = Doubler()
    target = instance(model, max_batch_size=0)
    sent = [InferRequest("m", (from_array("x", np.arange(size, dtype=np.float32)),)) for size in (1, 2, 3)]
    assert await asyncio.gather(*(ask(target, one) for one in sent)) == [[0], [0, 2], [0, 2, 4]]
    assert len(model.shapes) == 3
    await target.close()


async def test_a_failure_of_the_runtime_is_an_error_with_a_code_and_is_counted() -> None:
    target = instance(Doubler())
    with pytest.raises(InferenceError, match="not a number") as caught:
        await ask(target, request(float("nan")))
    assert caught.value.code is ErrorCode.RUNNER_EXECUTION_FAILED
    with pytest.raises(InferenceError) as caught:
        await ask(target, request(-1))
    assert caught.value.code is ErrorCode.RUNNER_INPUT_REJECTED
    assert await ask(target, request(1)) == [[2]]
    assert (target.statistics.fail.count, target.statistics.success.count) == (2, 1)
    await target.close()


async def test_a_request_that_fails_does_not_take_its_batch_with_it() -> None:
    model = Doubler()
    target = instance(model)
    model.gate.clear()
    first = asyncio.ensure_future(ask(target, request(1)))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(ask(target, request(number))) for number in (2, -1, 3)]
    await asyncio.sleep(0)
    model.gate.set()
    two, rejected, three = await asyncio.gather(*others, return_exceptions=True)
    assert (await first, two, three) == ([[2]], [[4]], [[6]])
    assert isinstance(rejected, InferenceError)
    assert (3, 1) in model.shapes
    assert (target.statistics.fail.count, target.statistics.success.count) == (1, 3)
    await target.close()


async def test_a_request_that_was_checked_against_another_generation_is_checked_again() -> None:
    target = instance(Doubler())
    with pytest.raises(InferenceError) as caught:
        await ask(target, request(1, rows=5), checked_for="older")
    assert caught.value.code is ErrorCode.TENSOR_BATCH_TOO_LARGE
    assert await ask(target, request(1), checked_for="older") == [[2]]
    await target.close()


async def test_a_request_that_is_given_up_in_the_queue_does_not_run() -> None:
    model = Doubler()
    target = instance(model, max_batch_size=1)
    model.gate.clear()
    first, given_up = target.submit([request(1), request(2)], checked_for="generation")
    answers = asyncio.ensure_future(target.outcomes([first, given_up]))
    await asyncio.sleep(0)
    given_up.cancel()
    model.gate.set()
    answered, gone = await answers
    assert not isinstance(answered, InferenceError)
    assert isinstance(gone, InferenceError)
    assert gone.code is ErrorCode.REQUEST_CANCELLED
    assert model.shapes == [(1, 1)]
    assert (target.statistics.fail.count, target.statistics.success.count) == (1, 1)
    await target.close()


async def test_closing_waits_for_what_is_under_way() -> None:
    model = Doubler()
    target = instance(model)
    model.gate.clear()
    answer = asyncio.ensure_future(ask(target, request(1)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(target.close())
    await asyncio.sleep(0)
    assert not model.closed
    model.gate.set()
    await closing
    assert model.closed
    assert await answer == [[2]]
