"""The runner deployment: replicas of one framework and device that keep models loaded and run them."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import serve

from trygon.deployments.batching import BatchingPolicy
from trygon.deployments.calls import Connect, connect, detach
from trygon.deployments.instance import ModelInstance
from trygon.deployments.item import Item
from trygon.deployments.messages import Desired, InferCall, InferOutcome, ReplicaReport
from trygon.deployments.residents import Residents
from trygon.errors import InferenceError
from trygon.models.backends import backend
from trygon.models.backends.base import Placement
from trygon.models.completion import complete, describe, labels
from trygon.models.config import FRAMEWORKS, backend_of
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.reshape import with_reshape
from trygon.models.versions import VersionSpec
from trygon.models.warmup import warmup_batches

logger = logging.getLogger(__name__)

CONTROL = "control"
"""Name of the deployment that holds the desired state."""

BACKENDS = {framework: name for name, framework in FRAMEWORKS.items()}
"""The backend of each framework, by which runner deployments are named."""

START_LOADS_S = 20.0
"""How long a new replica keeps out of traffic while it loads what is wanted; slower loads go on beside requests."""

HEARTBEAT_S = 10.0
"""Seconds between two reports of a replica where nothing changes: control hears nobody's answer in a round in which one
replica hangs, and must not take the others for dead."""


class Runner:
    """One replica. Its models come from the control deployment; it never reads the repository's index itself.

    `name` is the deployment's: framework and device. `replica` is this replica's id, by default the one from Ray Serve;
    `connect` and `batch` are Serve's, or stand-ins where there is no Serve around.
    """

    async def __init__(  # type: ignore[misc]  # noqa: PLR0913 - Serve awaits constructors; one argument per setting
        self,
        name: str,
        *,
        threads: int,
        load_timeout_s: float,
        default_max_batch_size: int,
        cohort_hold: bool = True,
        replica: str = "",
        connect: Connect = connect,
        batch: Callable[..., Any] = serve.batch,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._batch = batch
        self._name = name
        framework, _, self._device = name.rpartition("-")
        self._replica = replica or serve.get_replica_context().replica_id.unique_id
        self._threads = threads
        self._default_max_batch_size = default_max_batch_size
        self._cohort_hold = cohort_hold
        self._control = connect(CONTROL)
        self._residents = Residents(self._load, self._changed, load_timeout_s=load_timeout_s)
        # Before requests come: importing TensorFlow holds the interpreter for seconds. A runtime that cannot be
        # imported is the reason why its models cannot be loaded, and no reason to take the application down.
        try:
            backend(BACKENDS[framework])
        except Exception:
            logger.exception("the runtime of %s cannot be imported", name)
        self._known = ("", -1)
        self._calls: dict[str, Sequence[Item]] = {}
        self._sequence = 0
        self._serving = False
        self._reporting: asyncio.Task[None] | None = None
        desired: Desired = await self._control.desired.remote(name)
        self._follow(desired)
        self._beating = asyncio.create_task(self._beat(heartbeat_s))
        if desired.served:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._residents.settle(), START_LOADS_S)

    async def infer(self, call: InferCall) -> list[InferOutcome]:
        """Run the call's requests; each has its own outcome, in order."""
        self._serving = True
        try:
            instance = await self._residents.find(call.model, call.version)
        except InferenceError as error:
            return [error] * len(call.requests)
        items = instance.submit(call.requests, checked_for=call.generation)
        self._calls[call.id] = items
        try:
            return await instance.outcomes(items)
        finally:
            del self._calls[call.id]

    async def abandon(self, members: Sequence[tuple[str, int]]) -> None:
        """Forget requests, by call and place in it, that nobody waits for any more; what runs already goes on."""
        for call, index in members:
            if call in self._calls:
                self._calls[call][index].cancel()

    async def apply(self, desired: Desired) -> ReplicaReport:
        """Become what is desired, unless something newer is known; report at once, while loads go on."""
        self._serving = True
        self._follow(desired)
        return self._report()

    async def report(self) -> ReplicaReport:
        """Return what lives here. Also the call that wakes a deployment which has no replica."""
        self._serving = True
        return self._report()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve's autoscaler how many versions are here or to come, those included that still leave.

        See autoscaling.py.
        """
        return {"wanted_versions": float(len(self._residents.statuses()))}

    def _follow(self, desired: Desired) -> None:
        term, revision = self._known
        if desired.term != term or desired.revision > revision:
            self._known = (desired.term, desired.revision)
            self._residents.apply(desired.specs)

    def _report(self) -> ReplicaReport:
        self._sequence += 1
        return ReplicaReport(
            self._replica,
            self._name,
            self._residents.specs(),
            tuple(self._residents.statuses()),
            tuple(self._residents.statistics()),
            self._sequence,
            self._serving,
        )

    async def _beat(self, heartbeat_s: float) -> None:
        while True:
            await asyncio.sleep(heartbeat_s)
            self._changed()

    def _changed(self) -> None:
        if self._reporting is None:
            self._reporting = detach(self._report_soon())

    async def _report_soon(self) -> None:
        """Tell control of all changes of this turn at once; it asks again by itself if this is lost."""
        await asyncio.sleep(0)
        self._reporting = None
        try:
            await self._control.report.remote(self._report())
        except Exception as error:  # noqa: BLE001 - control may be restarting; its next round asks for this report
            logger.warning("control did not take a report: %s", error)

    def _load(self, spec: VersionSpec) -> ModelInstance:
        found = ModelConfig.FromString(spec.config)
        placement = self._placement(found)
        model = backend(backend_of(found)).load(Path(spec.path), found, placement)
        try:
            config = complete(found, model.signature, default_max_batch_size=self._default_max_batch_size)
            description = describe(config, model.signature, labels(config, Path(spec.model_path)))
            model = with_reshape(model, config)
            for batch in warmup_batches(config, Path(spec.model_path)):
                model.run(batch, [output.name for output in config.output])
            policy = BatchingPolicy.from_config(config, placement.instances, cohort_hold=self._cohort_hold)
            return ModelInstance(spec, model, policy, description, batch=self._batch)
        except BaseException:
            model.close()
            raise

    def _placement(self, config: ModelConfig) -> Placement:
        instances = max(1, sum(max(1, group.count) for group in config.instance_group))
        return Placement(device=self._device, instances=instances, threads=max(1, math.ceil(self._threads / instances)))
