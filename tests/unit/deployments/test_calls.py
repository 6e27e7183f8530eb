"""Handle calls: errors arrive as what they were, and work that outlives its call is not the call's."""

import contextvars
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from ray.serve.exceptions import RayServeException

from trygon.deployments.calls import call, connect, detach
from trygon.errors import ErrorCode, InferenceError

caller = contextvars.ContextVar("caller", default="nobody")


class Method:
    """A handle's method that raises what a replica raised, wrapped as Ray wraps it."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    async def remote(self, *arguments: Any) -> Any:
        try:
            return self._answer(*arguments)
        except ArithmeticError as error:
            raise RayTaskError("method", "", error).as_instanceof_cause() from error
        except InferenceError as error:
            raise RayTaskError("method", "", error).as_instanceof_cause() from error


def fail(error: Exception) -> None:
    raise error


async def test_a_result_arrives() -> None:
    assert await call(Method(lambda *numbers: sum(numbers)), 1, 2) == 3


async def test_an_inference_error_arrives_as_itself() -> None:
    with pytest.raises(InferenceError, match="no such") as caught:
        await call(Method(fail), InferenceError(ErrorCode.MODEL_NOT_FOUND, "no such model", model="m"))
    assert type(caught.value) is InferenceError
    assert (caught.value.code, caught.value.context) == (ErrorCode.MODEL_NOT_FOUND, {"model": "m"})


async def test_other_errors_arrive_as_ray_wraps_them() -> None:
    with pytest.raises(RayTaskError):
        await call(Method(fail), ZeroDivisionError("division by zero"))
    with pytest.raises(ValueError, match="not from a replica"):
        await call(Method(fail), ValueError("not from a replica"))


async def test_work_that_outlives_its_call_does_not_run_in_its_context() -> None:
    caller.set("client")

    async def who() -> str:
        return caller.get()

    assert await who() == "client"
    assert await detach(who()) == "nobody"


def test_there_are_no_handles_outside_of_an_application() -> None:
    with pytest.raises(RayServeException):
        connect("control")
