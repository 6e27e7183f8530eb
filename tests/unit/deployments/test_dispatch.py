"""The ingress side of the hop: deadlines, and what a failure of the call means to its requests."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, RayServeException

from trygon.deployments.coalescing import Coalescing
from trygon.deployments.dispatch import Dispatch
from trygon.deployments.messages import InferCall
from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.tensors import InferRequest, InferResponse, from_array
from trygon.models.versions import ModelDescription, ModelState, VersionStatus


class Handle:
    """A deployment handle whose method `infer` does what the test says."""

    def __init__(self, behave: Callable[[InferCall], Any]) -> None:
        self.calls: list[InferCall] = []
        self.infer = self
        self.told: list[Any] = []
        self._behave = behave

    def options(self, **given: str) -> Self:
        assert given == {"request_serialization": "pickle", "response_serialization": "pickle"}
        return self

    def broadcast(self, method: str, *arguments: Any) -> Self:
        self.told.append((method, *arguments))
        return self

    async def results_async(self, *, return_exceptions: bool) -> list[None]:
        assert return_exceptions
        return []

    async def remote(self, call: InferCall) -> Any:
        self.calls.append(call)
        outcome = self._behave(call)
        return await outcome if isinstance(outcome, asyncio.Future) else outcome


def echo(call: InferCall) -> list[InferResponse]:
    return [InferResponse(call.model, str(call.version), request.id, ()) for request in call.requests]


def fail(error: Exception) -> Callable[[InferCall], Any]:
    def behave(_: InferCall) -> Any:
        raise error

    return behave


def never(_: InferCall) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


DESCRIPTION = ModelDescription("test", b"", 8, (), (), shares=True)
ROUTED = RoutedVersion(
    VersionStatus("m", 3, ModelState.READY, generation="a", attempted="a", description=DESCRIPTION), "onnx-cpu"
)


def dispatch(handle: Handle, *, request_timeout_s: float = 60) -> Dispatch:
    coalescing = Coalescing(max_wait_s=3600)
    runners = {"onnx-cpu": handle}
    return Dispatch(runners, request_timeout_s=request_timeout_s, coalescing=coalescing, abandon_s=0)


def request(identity: str = "", columns: int = 1, **options: Any) -> InferRequest:
    return InferRequest("m", (from_array("x", np.zeros((1, columns), dtype=np.float32)),), id=identity, **options)


async def test_requests_of_one_version_and_shape_share_a_call() -> None:
    handle = Handle(echo)
    target = dispatch(handle)
    responses = await asyncio.gather(*(target.infer(ROUTED, request(name), 1) for name in "abc"))
    assert [response.id for response in responses] == ["a", "b", "c"]
    (call,) = handle.calls
    assert (call.model, call.version, call.generation) == ("m", 3, "a")


async def test_other_shapes_and_priorities_travel_apart() -> None:
    handle = Handle(echo)
    target = dispatch(handle)
    sent = [request("a"), request("b", columns=2), request("c", priority=1)]
    await asyncio.gather(*(target.infer(ROUTED, one, 1) for one in sent))
    assert len(handle.calls) == 3


async def test_requests_of_a_model_that_does_not_share_batches_travel_alone() -> None:
    handle = Handle(echo)
    target = dispatch(handle)
    alone = replace(ROUTED, status=replace(ROUTED.status, description=replace(DESCRIPTION, shares=False)))
    await asyncio.gather(*(target.infer(alone, request(name), 1) for name in "abc"))
    assert [len(call.requests) for call in handle.calls] == [1, 1, 1]


async def test_an_error_of_one_request_is_raised_for_it_alone() -> None:
    error = InferenceError(ErrorCode.RUNNER_INPUT_REJECTED, "negative")
    handle = Handle(lambda call: [error if one.id == "bad" else echo(call)[0] for one in call.requests])
    target = dispatch(handle)
    good, bad = await asyncio.gather(
        target.infer(ROUTED, request("good"), 1), target.infer(ROUTED, request("bad"), 1), return_exceptions=True
    )
    assert isinstance(good, InferResponse)
    assert bad is error


@pytest.mark.parametrize(("request_timeout_s", "timeout_us"), [(0.001, 0), (60, 1000)])
async def test_the_shorter_of_the_servers_and_the_callers_timeout_ends_the_wait(
    request_timeout_s: float, timeout_us: int
) -> None:
    target = dispatch(Handle(never), request_timeout_s=request_timeout_s)
    with pytest.raises(InferenceError, match=r"within 0\.001 s") as caught:
        await target.infer(ROUTED, request(timeout_us=timeout_us), 1)
    assert caught.value.code is ErrorCode.REQUEST_TIMEOUT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ActorDiedError(), ErrorCode.RUNNER_DIED),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), ErrorCode.RUNNER_OVERLOADED),
        (RayServeException("no deployment"), ErrorCode.ROUTING_NO_RUNNER),
    ],
)
async def test_a_call_that_no_replica_answers_is_a_retryable_error(error: Exception, code: ErrorCode) -> None:
    with pytest.raises(InferenceError, match="onnx-cpu") as caught:
        await dispatch(Handle(fail(error))).infer(ROUTED, request(), 1)
    assert caught.value.code is code
    assert caught.value.code.retryable


async def test_replicas_are_told_of_requests_that_nobody_waits_for_any_more() -> None:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    handle = Handle(lambda _: answer)
    target = dispatch(handle)
    gone, stays, left = (asyncio.ensure_future(target.infer(ROUTED, request(name), 1)) for name in "abc")
    while not handle.calls:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)
    gone.cancel()
    left.cancel()
    while not handle.told:  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0)
    (call,) = handle.calls
    assert handle.told == [("abandon", [(call.id, 0), (call.id, 2)])]
    answer.set_result(echo(call))
    assert (await stays).id == "b"
