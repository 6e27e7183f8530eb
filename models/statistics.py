"""Inference statistics of a model version, counted as Triton's statistics extension counts them."""

from dataclasses import dataclass, field
from typing import Self


@dataclass(slots=True)
class Duration:
    """How often something happened, and the total time it took in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count `count` more events that took `ns` nanoseconds together."""
        self.count += count
        self.ns += ns

    def merge(self, other: Self) -> None:
        """Add another duration to this one."""
        self.count += other.count
        self.ns += other.ns


@dataclass(slots=True)
class BatchStatistics:
    """Executions of one batch size (rows)."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def merge(self, other: Self) -> None:
        """Add another replica's executions of the same batch size."""
        self.compute_input.merge(other.compute_input)
        self.compute_infer.merge(other.compute_infer)
        self.compute_output.merge(other.compute_output)


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """What the scheduler of one replica is doing, and what it has learned of its callers.

    `waiting_tenants` counts a tenant once per priority level. `return_rate` is the share of callers that come back
    within `hold_window_s` of their answer, `execution_s` the recent execution time and `fixed_s` its part that does
    not grow with the batch. `holds` counts the releases that were held, `held_s` is their time together.
    """

    waiting_requests: int
    waiting_rows: int
    waiting_tenants: int
    running: int
    instances: int
    hold_enabled: bool
    holding: bool
    hold_window_s: float
    return_rate: float
    execution_s: float
    fixed_s: float
    holds: int
    held_s: float


@dataclass(slots=True)
class ModelStatistics:
    """All that a model version did since it was loaded.

    `last_inference` is in milliseconds since the epoch; `inference_count` counts rows, `execution_count` counts runs
    of the model, and each `Duration` below counts requests. `batches` is keyed by rows per
    execution. `schedulers` are the states of the replicas' schedulers as they were last heard of.
    """

    model: str
    version: int
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    batches: dict[int, BatchStatistics] = field(default_factory=dict)
    schedulers: tuple[SchedulerState, ...] = ()

    def merge(self, other: Self) -> None:
        """Add what another replica did with the same version."""
        self.last_inference = max(self.last_inference, other.last_inference)
        self.inference_count += other.inference_count
        self.execution_count += other.execution_count
        for name in DURATIONS:
            getattr(self, name).merge(getattr(other, name))
        for rows, batch in other.batches.items():
            self.batches.setdefault(rows, BatchStatistics()).merge(batch)
        self.schedulers += other.schedulers


DURATIONS = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)
"""The durations of a model version, in the order in which Triton lists them."""
