"""The composition root: settings become one Ray Serve application of ingress, control and runner deployments."""

from collections.abc import Iterable
from pathlib import Path

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from trygon.deployments.autoscaling import keep_while_wanted
from trygon.deployments.control import Control
from trygon.deployments.exposure import require_identity_source
from trygon.deployments.ingress import Ingress
from trygon.deployments.runner import CONTROL, Runner
from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import FRAMEWORKS
from trygon.models.repository import ModelRepository
from trygon.settings import IngressSettings, ModelControlMode, RunnerSettings, Settings

CPU_RUNNERS = ("onnx-cpu", "tensorflow-cpu", "litert-cpu")
"""The runner deployments that every application has. One that nothing is wanted from has no replica."""

DEVICES = ("cpu", "cuda", "tpu")
"""The devices that runner deployments may be for; which of them a framework can use, its backend says."""

LOGGING = {"enable_access_log": False, "log_level": "WARNING"}
"""Serve's access log costs a third of the throughput of small requests at 64 connections; at level INFO its records are
still made, and thrown away."""


def build(args: Settings) -> Application:
    """Return the application. Ray Serve calls this with the `args` of serve_config.yaml.

    Raises: SYSTEM_CONFIG_INVALID, MODEL_REPOSITORY_INVALID.
    """
    require_identity_source(args)
    names = tuple(dict.fromkeys((*CPU_RUNNERS, *args.runners)))
    _check_names(names)
    needed = _needed_at_start(args)
    control = serve.deployment(Control).options(
        name=CONTROL,
        num_replicas=1,
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=1,
        logging_config=LOGGING,
    )
    bound_control = control.bind(
        repositories=tuple(str(Path(root).resolve()) for root in args.model_repository),
        mode=args.model_control_mode,
        load_models=args.load_model,
        poll_s=args.repository_poll_s,
        load_timeout_s=args.load_timeout_s,
        overrides=str(args.data_dir.resolve() / "overrides"),
        runners=names,
    )
    runners = {name: _runner(name, args, started=name in needed) for name in names}
    return _ingress(args.ingress).bind(bound_control, runners, settings=args.ingress, server_name=args.server_name)


def _check_names(runners: Iterable[str]) -> None:
    known = [f"{framework}-{device}" for framework in FRAMEWORKS.values() for device in DEVICES]
    for name in runners:
        if name not in known:
            raise InferenceError(
                ErrorCode.SYSTEM_CONFIG_INVALID,
                f"runners: there is no runner deployment '{name}'; there are {', '.join(known)}",
                runner=name,
            )


def _ingress(settings: IngressSettings) -> serve.Deployment:
    return serve.deployment(serve.ingress()(Ingress)).options(
        name="ingress",
        max_ongoing_requests=settings.max_ongoing_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.target_ongoing_requests,
        ),
        ray_actor_options={"num_cpus": settings.num_cpus},
        logging_config=LOGGING,
    )


def _runner(name: str, args: Settings, *, started: bool) -> Application:
    settings = args.runner(name)
    deployment = serve.deployment(Runner).options(
        name=name,
        max_ongoing_requests=settings.max_ongoing_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=0,
            initial_replicas=1 if started else 0,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.target_ongoing_requests,
            policy=AutoscalingPolicy(policy_function=keep_while_wanted),
        ),
        ray_actor_options=_actor_options(settings),
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config=LOGGING,
    )
    return deployment.bind(
        name,
        threads=settings.threads or max(1, int(settings.num_cpus)),
        load_timeout_s=args.load_timeout_s,
        default_max_batch_size=args.default_max_batch_size,
        cohort_hold=settings.cohort_hold,
    )


def _actor_options(settings: RunnerSettings) -> dict[str, object]:
    options: dict[str, object] = {"num_cpus": settings.num_cpus}
    if settings.num_gpus:
        options["num_gpus"] = settings.num_gpus
    if settings.resources:
        options["resources"] = dict(settings.resources)
    return options


def _needed_at_start(args: Settings) -> frozenset[str]:
    """Return the runners that get a replica with the application, so that they start beside each other.

    Control finds out for itself what is needed; a repository that cannot be seen from here only costs time.
    """
    try:
        scan = ModelRepository([Path(root) for root in args.model_repository]).scan()
    except InferenceError:
        return frozenset()
    names: Iterable[str] = scan.entries
    if args.model_control_mode is ModelControlMode.EXPLICIT and "*" not in args.load_model:
        names = [name for name in args.load_model if name in scan.entries]
    return frozenset(spec.runner for name in names for spec in scan.entries[name].specs)
