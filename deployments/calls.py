"""Handle calls whose errors arrive as what they were, not as what Ray wraps them in."""

from typing import Any

from ray.exceptions import RayTaskError

from trygon.errors import InferenceError


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
