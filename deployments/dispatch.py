"""The ingress side of the hop to a runner: which requests travel together, their deadlines, and what failures mean."""

import asyncio
from collections.abc import Mapping, Sequence
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

ABANDON_S = 0.02
"""How long abandoned requests of a runner are gathered: each word about them goes to all of its replicas."""


class Dispatch:
    """Sends requests to the runner deployments. `runners` holds a deployment handle by name."""

    def __init__(
        self,
        runners: Mapping[str, Any],
        *,
        request_timeout_s: float,
        coalescing: Coalescing | None = None,
        abandon_s: float = ABANDON_S,
    ) -> None:
        self._runners = {name: _Runner(handle, abandon_s) for name, handle in runners.items()}
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
            line=_Line(self._runners[routed.runner], routed),
        )
        # A timer of the loop's: asyncio.timeout costs a tenth of all that happens to a small request here.
        timer = asyncio.get_running_loop().call_later(timeout_s, member.expire)
        try:
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
        finally:
            timer.cancel()
        if isinstance(outcome, InferenceError):
            raise outcome
        return outcome


class _Runner:
    """The handle of one runner deployment, and the requests in it that nobody waits for any more."""

    def __init__(self, handle: Any, abandon_s: float) -> None:
        # Pickle is quicker than the default, cloudpickle, and what travels here are Trygon's own plain classes.
        self._handle = handle.options(request_serialization="pickle", response_serialization="pickle")
        self._infer = self._handle.infer  # looked up once: each look makes a new handle
        self._abandon_s = abandon_s
        self._abandoned: list[tuple[str, int]] = []

    async def infer(self, infer_call: InferCall) -> list[InferOutcome]:
        outcomes: list[InferOutcome] = await call(self._infer, infer_call)
        return outcomes

    def abandon(self, call_id: str, index: int) -> None:
        if not self._abandoned:
            asyncio.get_running_loop().call_later(self._abandon_s, self._tell)
        self._abandoned.append((call_id, index))

    def _tell(self) -> None:
        """Tell all replicas, since nobody knows which one has the calls; it does no harm if this gets lost."""
        abandoned, self._abandoned = self._abandoned, []
        telling = asyncio.ensure_future(
            self._handle.broadcast("abandon", abandoned).results_async(return_exceptions=True)
        )
        telling.add_done_callback(lambda task: task.cancelled() or task.exception())


class _Line:
    """Implements coalescing.Line for one version."""

    def __init__(self, runner: _Runner, routed: RoutedVersion) -> None:
        self._runner = runner
        self._routed = routed

    async def send(self, call: str, requests: Sequence[InferRequest]) -> Sequence[InferOutcome]:
        status = self._routed.status
        return await self._runner.infer(
            InferCall(call, status.model, status.version, status.generation, tuple(requests))
        )

    def abandon(self, call: str, index: int) -> None:
        self._runner.abandon(call, index)


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
