"""How many replicas a runner deployment gets: Serve's own policy, but never none while models are wanted there."""

from typing import Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

WANTED_VERSIONS = "wanted_versions"
"""The statistic in which a replica says how many versions should be loaded in it."""


def keep_while_wanted(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Scale by requests in flight; an idle deployment keeps one replica until its replicas say that nothing is wanted.

    Serve pickles this function's module by value into its controller, so it leans on Ray alone.
    """
    replicas, state = replica_queue_length_autoscaling_policy(ctx)
    if ctx.current_num_replicas == 0:
        return replicas, state
    said = (ctx.aggregated_metrics or {}).get(WANTED_VERSIONS, {})
    idle = len(said) >= ctx.current_num_replicas and not any(said.values())
    return (replicas if idle else max(replicas, 1)), state
