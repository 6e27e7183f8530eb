from typing import Any

import pytest
from google.protobuf import text_format

from trygon.deployments.batching import BatchingPolicy, QueuePolicy, TimeoutAction
from trygon.errors import ErrorCode, InferenceError
from trygon.models.proto.model_config_pb2 import ModelConfig


def config(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_a_policy_is_read_from_a_model_s_configuration() -> None:
    policy = BatchingPolicy.from_config(
        config("""
            max_batch_size: 8
            dynamic_batching {
              preferred_batch_size: [ 4, 2, 4 ]
              max_queue_delay_microseconds: 1500
              priority_levels: 2
              default_priority_level: 2
              default_queue_policy { max_queue_size: 7 }
              priority_queue_policy {
                key: 1
                value { timeout_action: DELAY default_timeout_microseconds: 250000 allow_timeout_override: true }
              }
            }
        """),
        3,
    )
    delayed = QueuePolicy(default_timeout_s=0.25, timeout_action=TimeoutAction.DELAY, allow_timeout_override=True)
    assert policy == BatchingPolicy(
        max_batch_size=8,
        instances=3,
        preferred_batch_sizes=(2, 4),
        max_queue_delay_s=0.0015,
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(max_queue_size=7),
        priority_queue_policies={1: delayed},
    )
    assert policy.queue_policy(1) is delayed or policy.queue_policy(1) == delayed
    assert policy.queue_policy(2) == QueuePolicy(max_queue_size=7)


def test_without_dynamic_batching_requests_do_not_share() -> None:
    policy = BatchingPolicy.from_config(config("max_batch_size: 8"), 1)
    assert not policy.shares
    assert policy.max_batch_size == 8


def test_empty_dynamic_batching_shares_as_far_as_the_model_batches() -> None:
    assert BatchingPolicy.from_config(config("max_batch_size: 8 dynamic_batching {}"), 1).shares
    assert not BatchingPolicy.from_config(config("dynamic_batching {}"), 1).shares


def test_the_hold_can_be_turned_off() -> None:
    assert not BatchingPolicy.from_config(config("dynamic_batching {}"), 1, cohort_hold=False).cohort_hold


@pytest.mark.parametrize(("priority", "level"), [(0, 2), (1, 1), (3, 3), (4, 2), (-1, 2), (2**64, 2)])
def test_unknown_priorities_are_the_default_s(priority: int, level: int) -> None:
    assert BatchingPolicy(priority_levels=3, default_priority_level=2).level(priority) == level


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"max_batch_size": -1}, "max_batch_size -1"),
        ({"instances": 0}, "0 instances"),
        ({"preferred_batch_sizes": (2,)}, "preferred_batch_size needs"),
        ({"max_batch_size": 4, "preferred_batch_sizes": (8,)}, "preferred_batch_size 8"),
        ({"max_batch_size": 4, "preferred_batch_sizes": (0,)}, "preferred_batch_size 0"),
        ({"priority_levels": 2}, "default_priority_level 0"),
        ({"priority_queue_policies": {1: QueuePolicy()}}, "priority_queue_policy 1"),
        ({"preserve_ordering": True, "priority_levels": 2, "default_priority_level": 1}, "priority_levels"),
        (
            {"preserve_ordering": True, "default_queue_policy": QueuePolicy(timeout_action=TimeoutAction.DELAY)},
            "DELAY",
        ),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(fault: dict[str, Any], told: str) -> None:
    with pytest.raises(InferenceError, match=told) as caught:
        BatchingPolicy(**fault)
    assert caught.value.code is ErrorCode.MODEL_CONFIG_INVALID
