"""The ingress side of the hop to a runner: which requests travel together, their deadlines, and what failures mean."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, RayServeException

from trygon.deployments.calls import call
from trygon.deployments.coalescing import Coalescing
from trygon.deployments.messages import InferCall, InferOutcome
from trygon.errors import ErrorCode, InferenceError
from trygon.models.execution import shape_key
from trygon.models.routing import RoutedVersion
from trygon.models.tensors import InferRequest, InferResponse


class Dispatch:
    """Sends requests to the runner deployments. `runners` holds a deployment handle by name."""

    def __init__(
        self, runners: Mapping[str, Any], *, request_timeout_s: float, coalescing: Coalescing | None = None
    ) -> None:
        # Pickle is quicker than the default, cloudpickle, and what travels here are Trygon's own plain classes.
        self._infer: dict[str, Callable[[InferCall], Awaitable[list[InferOutcome]]]] = {
            name: partial(call, handle.options(request_serialization="pickle", response_serialization="pickle").infer)
            for name, handle in runners.items()
        }
        self._request_timeout_s = request_timeout_s
        self._coalescing = coalescing or Coalescing()

    async def infer(self, routed: RoutedVersion, request: InferRequest, rows: int) -> InferResponse:
        """Run a request that was checked against the version and has `rows` rows.

        Requests of one version, shape and priority travel together.

        Raises: REQUEST_TIMEOUT when the request's own timeout or the server's is over, RUNNER_DIED, ROUTING_NO_RUNNER,
        RUNNER_OVERLOADED, and what the runner itself raises.
        """
        status = routed.status
        description = status.description
        timeout_s = self._request_timeout_s
        if request.timeout_us:
            timeout_s = min(timeout_s, request.timeout_us / 1e6)
        group = (status.model, status.version, status.generation, request.priority, shape_key(request))
        member = self._coalescing.submit(
            group,
            request,
            rows,
            max_rows=description.max_batch_size if description and description.shares else 1,
            send=partial(self._send, routed),
        )
        try:
            async with asyncio.timeout(timeout_s):
                outcome: InferOutcome = await member
        except TimeoutError:
            raise InferenceError(
                ErrorCode.REQUEST_TIMEOUT,
                f"model '{status.model}' did not answer within {timeout_s:g} s",
                model=status.model,
                timeout_s=timeout_s,
            ) from None
        except (RayActorError, RayServeException) as error:
            raise _unavailable(error, routed) from error
        if isinstance(outcome, InferenceError):
            raise outcome
        return outcome

    async def _send(self, routed: RoutedVersion, requests: Sequence[InferRequest]) -> Sequence[InferOutcome]:
        status = routed.status
        return await self._infer[routed.runner](
            InferCall(status.model, status.version, status.generation, tuple(requests))
        )


def _unavailable(error: Exception, routed: RoutedVersion) -> InferenceError:
    """Return what a call that no replica answered means for one of its requests."""
    runner, model = routed.runner, routed.status.model
    if isinstance(error, RayActorError):
        message = f"the replica of {runner} died while it worked on model '{model}'"
        return InferenceError(ErrorCode.RUNNER_DIED, message, runner=runner, model=model)
    if isinstance(error, BackPressureError):
        message = f"{runner} has too many requests in flight"
        return InferenceError(ErrorCode.RUNNER_OVERLOADED, message, runner=runner, model=model)
    message = f"no replica of {runner} can take requests"
    return InferenceError(ErrorCode.ROUTING_NO_RUNNER, message, runner=runner, model=model)
