"""One loaded model version on a replica: its scheduler forms batches, threads run them, and all is counted."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from ray import serve

from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.item import Item
from trygon.deployments.scheduler import Scheduler
from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel
from trygon.models.execution import Execution, Executor, shape_key
from trygon.models.signature import RequestCheck
from trygon.models.statistics import BatchStatistics, ModelStatistics
from trygon.models.tensors import InferRequest, InferResponse
from trygon.models.versions import ModelDescription, VersionSpec

Outcome: TypeAlias = InferResponse | InferenceError
RunBatch: TypeAlias = Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]


SHORT_NS = 300_000
"""Executions shorter than this run on the event loop: a thread and back costs 0.1 to 0.2 ms. The longest of the recent
ones decides, so one that is unexpectedly long holds up the loop once."""


class ModelInstance:
    """A loaded version. `submit` requests at any time; `close` waits for what is under way.

    `batch` is Ray Serve's decorator, or a stand-in where there is no replica around.
    """

    def __init__(
        self,
        spec: VersionSpec,
        model: LoadedModel,
        policy: BatchingPolicy,
        description: ModelDescription,
        *,
        batch: Callable[..., Any] = serve.batch,
    ) -> None:
        self.spec = spec
        self.description = description
        self._statistics = ModelStatistics(spec.model, spec.version)
        self._model = model
        self._check = RequestCheck(spec.model, description)
        self._execute = Executor(model, description, spec.model, str(spec.version))
        self._threads = ThreadPoolExecutor(policy.instances, thread_name_prefix=f"{spec.model}-{spec.version}")
        self._recent_ns = 4 * SHORT_NS
        self._run_released: RunBatch = self._batched(batch, policy.instances)
        self._scheduler = Scheduler(policy, self._run_released)

    @property
    def statistics(self) -> ModelStatistics:
        """What this version has done since it was loaded, and the state of its scheduler."""
        self._statistics.schedulers = (self._scheduler.snapshot(),)
        return self._statistics

    def submit(self, requests: Sequence[InferRequest], *, checked_for: str) -> list[Item]:
        """Queue requests; await their `outcomes`. Cancel an item to give one up.

        `checked_for` names the generation whose tensors they were checked against; they are checked again if that is
        not this one.
        """
        check = checked_for != self.spec.generation
        return [self._submit(request, check=check) for request in requests]

    async def outcomes(self, items: Sequence[Item]) -> list[Outcome]:
        """Return a response or an error for each item, in order. Cancelling this gives all of them up."""
        outcomes = await asyncio.gather(*items, return_exceptions=True)
        for item in items:
            if not item.started_at_ns:  # refused, or given up in the queue; the others were counted as they ran
                self._statistics.fail.add(time.monotonic_ns() - item.enqueued_at_ns)
        return [outcome if isinstance(outcome, InferResponse) else self._as_error(outcome) for outcome in outcomes]

    async def close(self) -> None:
        """Run what waits, take nothing new, then give the memory back."""
        await self._scheduler.close(drain=True)
        self._threads.shutdown(wait=False)
        await asyncio.to_thread(self._model.close)

    def _submit(self, request: InferRequest, *, check: bool) -> Item:
        try:
            rows = self._check(request) if check else _rows(request)
        except InferenceError as error:
            return self._scheduler.refuse(error)
        return self._scheduler.submit(
            request,
            rows=rows,
            shape_key=shape_key(request),
            priority=request.priority,
            timeout_s=request.timeout_us / 1e6 or None,
        )

    def _batched(self, batch: Callable[..., Any], instances: int) -> RunBatch:
        """Return `_run_batch` behind Ray Serve's batching.

        The scheduler decides who runs together, so each batch it releases is one item of Serve's queue. The decorator
        keeps one queue per decorated function, not per object: each instance decorates its own.
        """

        async def run_batches(batches: list[Sequence[Item]]) -> list[Sequence[Outcome]]:
            return [await self._run_batch(items) for items in batches]

        # Serve looks the signature up anew for each item; this makes it a look at an attribute.
        run_batches.__signature__ = inspect.signature(run_batches)  # type: ignore[attr-defined]
        decorated: RunBatch = batch(
            run_batches, max_batch_size=1, batch_wait_timeout_s=0, max_concurrent_batches=instances
        )
        return decorated

    async def _run_batch(self, batch: Sequence[Item]) -> Sequence[Outcome]:
        """Run requests of equal shape as one execution; return a result or error for each, in order.

        When it fails, each runs once more alone: only those whose own input is at fault get an error.
        """
        requests, rows = [item.payload for item in batch], [item.rows for item in batch]
        queued_ns = [item.started_at_ns - item.enqueued_at_ns for item in batch]
        try:
            if self._recent_ns < SHORT_NS:
                execution = self._execute(requests, rows, queued_ns)
            else:
                loop = asyncio.get_running_loop()
                execution = await loop.run_in_executor(self._threads, self._execute, requests, rows, queued_ns)
        except Exception as error:  # noqa: BLE001 - a fault of one batch must not end the replica
            if len(batch) > 1:
                return [outcome for item in batch for outcome in await self._run_batch([item])]
            self._statistics.fail.add(time.monotonic_ns() - batch[0].enqueued_at_ns)
            return [self._as_error(error)]
        self._count(batch, execution)
        return execution.responses

    def _count(self, batch: Sequence[Item], execution: Execution) -> None:
        statistics, now_ns = self._statistics, time.monotonic_ns()
        statistics.last_inference = time.time_ns() // 1_000_000
        statistics.inference_count += execution.rows
        statistics.execution_count += 1
        requests = len(batch)
        statistics.success.add(sum(now_ns - item.enqueued_at_ns for item in batch), requests)
        statistics.queue.add(sum(item.started_at_ns - item.enqueued_at_ns for item in batch), requests)
        # Triton counts an execution's times once for each of its requests here, and once per execution below.
        statistics.compute_input.add(requests * execution.input_ns, requests)
        statistics.compute_infer.add(requests * execution.infer_ns, requests)
        statistics.compute_output.add(requests * execution.output_ns, requests)
        took_ns = execution.input_ns + execution.infer_ns + execution.output_ns
        self._recent_ns = max(took_ns, self._recent_ns * 9 // 10)
        executions = statistics.batches.setdefault(execution.rows, BatchStatistics())
        executions.compute_input.add(execution.input_ns)
        executions.compute_infer.add(execution.infer_ns)
        executions.compute_output.add(execution.output_ns)

    def _as_error(self, error: BaseException) -> InferenceError:
        if isinstance(error, InferenceError):
            return error
        if isinstance(error, asyncio.CancelledError):
            return InferenceError(ErrorCode.REQUEST_CANCELLED, "the caller left before its turn came")
        message = f"model '{self.spec.model}' failed: {type(error).__name__}: {error}"
        return InferenceError(ErrorCode.RUNNER_EXECUTION_FAILED, message, model=self.spec.model)


def _rows(request: InferRequest) -> int:
    return request.inputs[0].rows if request.inputs else 1
