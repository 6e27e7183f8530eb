"""The ingress side of the hop to a runner: one handle call, its deadline, and what its failures mean."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import ActorDiedError, RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from trygon.deployments.calls import call
from trygon.deployments.messages import InferCall, InferOutcome
from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.tensors import InferRequest, InferResponse


class Dispatch:
    """Sends requests to the runner deployments. `runners` holds a deployment handle by name."""

    def __init__(self, runners: Mapping[str, Any], *, request_timeout_s: float) -> None:
        self._runners = runners
        self._request_timeout_s = request_timeout_s

    async def infer(self, routed: RoutedVersion, request: InferRequest) -> InferResponse:
        """Run a request on the version's runner.

        Raises: REQUEST_TIMEOUT when the request's own timeout or the server's is over, RUNNER_DIED, ROUTING_NO_RUNNER,
        RUNNER_OVERLOADED, and what the runner itself raises.
        """
        status = routed.status
        timeout_s = self._request_timeout_s
        if request.timeout_us:
            timeout_s = min(timeout_s, request.timeout_us / 1e6)
        infer_call = InferCall(status.model, status.version, status.generation, (request,))
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await self._send(routed.runner, infer_call)
        except TimeoutError:
            raise InferenceError(
                ErrorCode.REQUEST_TIMEOUT,
                f"model '{status.model}' did not answer within {timeout_s:g} s",
                model=status.model,
                timeout_s=timeout_s,
            ) from None
        if isinstance(outcome, InferenceError):
            raise outcome
        return outcome

    async def _send(self, runner: str, infer_call: InferCall) -> InferOutcome:
        try:
            outcomes: list[InferOutcome] = await call(self._runners[runner].infer, infer_call)
        except (ActorDiedError, RayActorError) as error:
            message = f"the replica of {runner} died while it worked on model '{infer_call.model}'"
            raise InferenceError(ErrorCode.RUNNER_DIED, message, runner=runner, model=infer_call.model) from error
        except BackPressureError as error:
            message = f"{runner} has too many requests in flight"
            raise InferenceError(ErrorCode.RUNNER_OVERLOADED, message, runner=runner) from error
        except (DeploymentUnavailableError, RayServeException) as error:
            message = f"no replica of {runner} can take requests"
            raise InferenceError(ErrorCode.ROUTING_NO_RUNNER, message, runner=runner) from error
        return outcomes[0]
