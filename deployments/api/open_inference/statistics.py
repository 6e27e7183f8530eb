"""The statistics extension: a version's statistics as Triton's JSON and as its protobuf message."""

from dataclasses import asdict
from typing import Any

from trygon.deployments.api.proto import grpc_service_pb2 as pb
from trygon.models.statistics import DURATIONS, BatchStatistics, Duration, ModelStatistics

_BATCH_DURATIONS = ("compute_input", "compute_infer", "compute_output")


def statistics_json(statistics: ModelStatistics) -> dict[str, Any]:
    """Return a version's statistics as JSON; counters are numbers, durations nanoseconds."""
    return {
        "name": statistics.model,
        "version": str(statistics.version),
        "last_inference": statistics.last_inference,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {name: _duration_json(getattr(statistics, name)) for name in DURATIONS},
        "response_stats": {},
        "batch_stats": [
            {"batch_size": rows}
            | {name: _duration_json(getattr(statistics.batches[rows], name)) for name in _BATCH_DURATIONS}
            for rows in sorted(statistics.batches)
        ],
        "memory_usage": [],
        # Ours: Triton has nothing of the kind, and its clients pass over what they do not know.
        "schedulers": [asdict(state) for state in statistics.schedulers],
    }


def statistics_message(statistics: ModelStatistics) -> pb.ModelStatistics:
    """Return a version's statistics as a message."""
    return pb.ModelStatistics(
        name=statistics.model,
        version=str(statistics.version),
        last_inference=statistics.last_inference,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=pb.InferStatistics(
            **{name: _duration_message(getattr(statistics, name)) for name in DURATIONS},
        ),
        batch_stats=[_batch_message(rows, statistics.batches[rows]) for rows in sorted(statistics.batches)],
    )


def _duration_json(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def _duration_message(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _batch_message(rows: int, batch: BatchStatistics) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=rows, **{name: _duration_message(getattr(batch, name)) for name in _BATCH_DURATIONS}
    )
