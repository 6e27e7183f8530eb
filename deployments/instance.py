"""One loaded model version on a replica: it forms batches, runs them in threads and counts what it did."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ray import serve

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel, Placement
from trygon.models.execution import Execution, Executor, shape_key
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.signature import RequestCheck
from trygon.models.statistics import BatchStatistics, ModelStatistics
from trygon.models.tensors import InferRequest, InferResponse
from trygon.models.versions import ModelDescription, VersionSpec


@dataclass(slots=True)
class Work:
    """One request on its way through the instance; `queued_at_ns` is monotonic."""

    request: InferRequest
    rows: int
    queued_at_ns: int


class ModelInstance:
    """A loaded version. `infer` may be called concurrently; `close` waits for what is under way."""

    def __init__(
        self,
        spec: VersionSpec,
        model: LoadedModel,
        config: ModelConfig,
        description: ModelDescription,
        placement: Placement,
    ) -> None:
        self.spec = spec
        self.description = description
        self.statistics = ModelStatistics(spec.model, spec.version)
        self._model = model
        self._check = RequestCheck(spec.model, description)
        self._execute = Executor(model, description, spec.model, str(spec.version))
        self._threads = ThreadPoolExecutor(placement.instances, thread_name_prefix=f"{spec.model}-{spec.version}")
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        # The decorator keeps one queue per decorated function, not per object: each instance decorates its own.
        self._batch = serve.batch(
            self._run_batch,
            max_batch_size=max(1, description.max_batch_size),
            batch_wait_timeout_s=config.dynamic_batching.max_queue_delay_microseconds / 1e6,
            max_concurrent_batches=placement.instances,
            batch_size_fn=_rows,
        )

    async def infer(self, request: InferRequest, *, checked_for: str) -> InferResponse:
        """Run one request in some batch.

        `checked_for` names the generation whose tensors the request was checked against; it is checked again if that
        is not this one.

        Raises: TENSOR_…, RUNNER_….
        """
        started = time.perf_counter_ns()
        self._under_way += 1
        self._idle.clear()
        try:
            rows = self._check(request) if checked_for != self.spec.generation else _rows_of(request)
            outcome = await self._batch(Work(request, rows if self.description.max_batch_size else 1, started))
        except BaseException:
            self.statistics.fail.add(time.perf_counter_ns() - started)
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        if isinstance(outcome, InferenceError):
            self.statistics.fail.add(time.perf_counter_ns() - started)
            raise outcome
        response: InferResponse = outcome
        self.statistics.success.add(time.perf_counter_ns() - started)
        return response

    async def close(self) -> None:
        """Wait until nothing is under way, then give the memory back."""
        await self._idle.wait()
        self._threads.shutdown(wait=False)
        await asyncio.to_thread(self._model.close)

    async def _run_batch(self, batch: list[Work]) -> list[InferResponse | InferenceError]:
        """Run the works in as few executions as their shapes allow; return a result or error for each, in order."""
        outcomes: dict[int, InferResponse | InferenceError] = {}
        ordered = sorted(range(len(batch)), key=lambda index: repr(shape_key(batch[index].request)))
        for _, indices in itertools.groupby(ordered, key=lambda index: shape_key(batch[index].request)):
            for group in self._groups(list(indices)):
                works = [batch[index] for index in group]
                outcomes.update(zip(group, await self._run_group(works), strict=True))
        return [outcomes[index] for index in range(len(batch))]

    def _groups(self, indices: list[int]) -> list[list[int]]:
        """Return the indices as one group, or one by one for a model that does not batch."""
        return [indices] if self.description.max_batch_size else [[index] for index in indices]

    async def _run_group(self, works: Sequence[Work]) -> Sequence[InferResponse | InferenceError]:
        started = time.perf_counter_ns()
        loop = asyncio.get_running_loop()
        requests, rows = [work.request for work in works], [work.rows for work in works]
        try:
            execution = await loop.run_in_executor(self._threads, self._execute, requests, rows)
        except InferenceError as error:
            return [error] * len(works)
        except Exception as error:  # noqa: BLE001 - a fault of one batch must not end the replica
            message = f"model '{self.spec.model}' failed: {type(error).__name__}: {error}"
            return [InferenceError(ErrorCode.RUNNER_EXECUTION_FAILED, message, model=self.spec.model)] * len(works)
        self._count(works, execution, started)
        return execution.responses

    def _count(self, works: Sequence[Work], execution: Execution, started_ns: int) -> None:
        statistics = self.statistics
        statistics.last_inference = time.time_ns() // 1_000_000
        statistics.inference_count += execution.rows
        statistics.execution_count += 1
        for work in works:
            statistics.queue.add(started_ns - work.queued_at_ns)
            statistics.compute_input.add(execution.input_ns)
            statistics.compute_infer.add(execution.infer_ns)
            statistics.compute_output.add(execution.output_ns)
        batch = statistics.batches.setdefault(execution.rows, BatchStatistics())
        batch.compute_input.add(execution.input_ns)
        batch.compute_infer.add(execution.infer_ns)
        batch.compute_output.add(execution.output_ns)


def _rows_of(request: InferRequest) -> int:
    return request.inputs[0].rows if request.inputs else 1


def _rows(works: list[Work]) -> int:
    return sum(work.rows for work in works)
