"""The batching policy of a model: what its configuration says about queues and batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Self

from trygon.errors import ErrorCode, InferenceError
from trygon.models.proto.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelQueuePolicy


class TimeoutAction(Enum):
    """What happens to a request that waited longer than its timeout (Triton's ModelQueuePolicy.TimeoutAction)."""

    REJECT = "reject"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How one priority level's queue behaves (Triton's ModelQueuePolicy).

    `max_queue_size` counts waiting requests, 0 is unlimited. `default_timeout_s` 0 is none. With
    `allow_timeout_override` a request may ask for less time than the default, never for more; where there is no
    default, any time is less.
    """

    max_queue_size: int = 0
    default_timeout_s: float = 0
    timeout_action: TimeoutAction = TimeoutAction.REJECT
    allow_timeout_override: bool = False

    @classmethod
    def from_config(cls, config: ModelQueuePolicy) -> Self:
        """Read the policy from a model's configuration."""
        return cls(
            max_queue_size=config.max_queue_size,
            default_timeout_s=config.default_timeout_microseconds / 1e6,
            timeout_action=(
                TimeoutAction.DELAY if config.timeout_action == ModelQueuePolicy.DELAY else TimeoutAction.REJECT
            ),
            allow_timeout_override=config.allow_timeout_override,
        )

    def timeout_s(self, asked_s: float | None) -> float:
        """Return how long a request that asked for `asked_s` seconds may wait; 0 is for ever."""
        default_s = self.default_timeout_s
        if asked_s is not None and self.allow_timeout_override and 0 < asked_s < (default_s or float("inf")):
            return asked_s
        return default_s


@dataclass(frozen=True, slots=True)
class BatchingPolicy:
    """How a model's requests become batches (Triton's max_batch_size, instance_group and dynamic_batching).

    `max_batch_size` 0 means that the model has no batch dimension: each request runs alone. So it does when `dynamic`
    is false, although it may bring several rows of its own. `priority_levels` 0 is a single queue. `cohort_hold`
    allows the hold that cohort.py describes. Event loops keep time in milliseconds: a `max_queue_delay_s` that nothing
    ends earlier may last up to one millisecond longer.
    """

    max_batch_size: int = 0
    instances: int = 1
    dynamic: bool = True
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_s: float = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    priority_queue_policies: Mapping[int, QueuePolicy] = field(default_factory=lambda: MappingProxyType({}))
    cohort_hold: bool = True

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"invalid batching policy: {fault}")

    @classmethod
    def from_config(cls, config: ModelConfig, instances: int, *, cohort_hold: bool = True) -> Self:
        """Read the policy from a completed model configuration.

        Without `dynamic_batching` this is Triton's default scheduler: requests are spread over the instances and
        never share an execution.

        Raises: MODEL_CONFIG_INVALID where Triton refuses to load the model.
        """
        if not config.HasField("dynamic_batching"):
            return cls(max_batch_size=config.max_batch_size, instances=instances, dynamic=False, cohort_hold=False)
        dynamic: ModelDynamicBatching = config.dynamic_batching
        return cls(
            max_batch_size=config.max_batch_size,
            instances=instances,
            preferred_batch_sizes=tuple(sorted(set(dynamic.preferred_batch_size))),
            max_queue_delay_s=dynamic.max_queue_delay_microseconds / 1e6,
            preserve_ordering=dynamic.preserve_ordering,
            priority_levels=dynamic.priority_levels,
            default_priority_level=dynamic.default_priority_level,
            default_queue_policy=QueuePolicy.from_config(dynamic.default_queue_policy),
            priority_queue_policies={
                level: QueuePolicy.from_config(policy) for level, policy in dynamic.priority_queue_policy.items()
            },
            cohort_hold=cohort_hold,
        )

    @property
    def shares(self) -> bool:
        """Whether requests may share an execution."""
        return self.dynamic and self.max_batch_size > 1

    def level(self, priority: int) -> int:
        """Return the level of a request with this priority; 0 and what lies beyond the levels is the default's."""
        return priority if 0 < priority <= self.priority_levels else self.default_priority_level

    def queue_policy(self, level: int) -> QueuePolicy:
        """Return the policy of a priority level's queue."""
        return self.priority_queue_policies.get(level, self.default_queue_policy)

    def _fault(self) -> str:
        """Return what is wrong with this policy, or nothing."""
        if self.max_batch_size < 0:
            return f"max_batch_size {self.max_batch_size} is negative"
        if self.instances < 1:
            return f"{self.instances} instances cannot run anything"
        if self.preferred_batch_sizes and not self.shares:
            return "preferred_batch_size needs a max_batch_size above 1"
        for size in self.preferred_batch_sizes:
            if not 0 < size <= self.max_batch_size:
                return f"preferred_batch_size {size} is not between 1 and max_batch_size {self.max_batch_size}"
        return self._priority_fault() or self._ordering_fault()

    def _priority_fault(self) -> str:
        levels = self.priority_levels
        if levels and not 0 < self.default_priority_level <= levels:
            return f"default_priority_level {self.default_priority_level} is not between 1 and {levels}"
        for level in self.priority_queue_policies:
            if not 0 < level <= levels:
                return f"priority_queue_policy {level} is not between 1 and priority_levels {levels}"
        return ""

    def _ordering_fault(self) -> str:
        if not self.preserve_ordering:
            return ""
        if self.priority_levels > 1:
            return "preserve_ordering allows no more than one of priority_levels"
        policies = (self.default_queue_policy, *self.priority_queue_policies.values())
        if any(policy.timeout_action is TimeoutAction.DELAY for policy in policies):
            return "preserve_ordering does not allow the timeout_action DELAY"
        return ""
