"""How many replicas a runner gets: one at least while anything is wanted there."""

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from trygon.deployments.autoscaling import WANTED_VERSIONS, keep_while_wanted

RUNNER = DeploymentID("onnx-cpu", "trygon")


def replicas(*, now: int, requests: float = 0, said: tuple[float, ...] | None = None) -> float:
    """Return what the policy asks for after `said` has been in force for as long as downscaling waits."""
    ids = [ReplicaID(str(number), RUNNER) for number in range(now)]
    metrics = None if said is None else {WANTED_VERSIONS: dict(zip(ids, said, strict=False))}
    context = AutoscalingContext(
        deployment_id=RUNNER,
        deployment_name="onnx-cpu",
        app_name="trygon",
        current_num_replicas=now,
        target_num_replicas=now,
        running_replicas=ids,
        total_num_requests=requests,
        total_queued_requests=requests,
        aggregated_metrics=metrics,
        raw_metrics=None,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=4,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=AutoscalingConfig(min_replicas=0, max_replicas=4, target_ongoing_requests=10),
    )
    wanted, _ = keep_while_wanted(context)
    return wanted


def test_a_call_that_waits_wakes_a_runner_without_replicas() -> None:
    assert replicas(now=0, requests=1) == 1


def test_an_idle_runner_without_replicas_stays_so() -> None:
    assert replicas(now=0) == 0


@pytest.mark.parametrize("said", [None, (), (1.0,)])
def test_one_replica_stays_until_it_says_that_nothing_is_wanted(said: tuple[float, ...] | None) -> None:
    assert replicas(now=1, said=said) == 1


def test_an_idle_runner_that_nothing_is_wanted_from_loses_its_replica() -> None:
    assert replicas(now=1, said=(0.0,)) == 0


def test_a_replica_that_has_not_spoken_yet_keeps_the_runner() -> None:
    assert replicas(now=2, said=(0.0,)) >= 1


def test_requests_decide_beyond_one_replica() -> None:
    assert replicas(now=1, requests=35, said=(2.0,)) == pytest.approx(3.5)
