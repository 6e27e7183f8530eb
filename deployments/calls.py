"""Handles of the application's deployments, and calls whose errors arrive as what they were, not as Ray wraps them."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

from ray import serve
from ray.exceptions import RayTaskError

from trygon.errors import InferenceError

Connect: TypeAlias = Callable[[str], Any]
"""Returns the handle of the deployment with this name."""

_T = TypeVar("_T")


def connect(deployment: str) -> Any:
    """Return the handle of a deployment of the application that this replica belongs to."""
    return serve.get_deployment_handle(deployment, app_name=serve.get_replica_context().app_name)


def detach(work: Coroutine[Any, Any, _T], *, name: str | None = None) -> "asyncio.Task[_T]":
    """Start work that outlives the call which asked for it.

    Ray Serve cancels what a cancelled call has called in its context, so this work gets one of its own. Keep the task:
    the event loop holds it weakly.
    """
    return asyncio.create_task(work, name=name, context=contextvars.Context())


async def call(method: Any, *arguments: Any) -> Any:
    """Call a method of a deployment handle and return its result.

    Raises: the InferenceError that the method raised, or whatever Ray raises when there is no replica to answer.
    """
    try:
        return await method.remote(*arguments)
    except RayTaskError as error:
        if isinstance(error.cause, InferenceError):
            raise error.cause from error
        raise
