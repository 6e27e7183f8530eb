"""The composition root: which deployments an application has, and what it refuses to be built from."""

from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application

from trygon.deployments.app import build
from trygon.errors import ErrorCode, InferenceError
from trygon.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "models"


def deployments(application: Application) -> dict[str, Any]:
    """Return all deployments of an application by name, and what each is bound to."""
    bound = application._bound_deployment  # noqa: SLF001 - Serve has no public way to look into an application
    found = {bound.name: bound}
    values = [*bound.init_args, *bound.init_kwargs.values()]
    for value in values:
        nested = list(value.values()) if isinstance(value, dict) else [value]
        for item in nested:
            if isinstance(item, Application):
                found.update(deployments(item))
    return found


def built(**settings: Any) -> dict[str, Any]:
    return deployments(build(Settings.load(**settings)))


def initial_replicas(found: dict[str, Any]) -> dict[str, int]:
    return {
        name: deployment._deployment_config.autoscaling_config.initial_replicas  # noqa: SLF001 - as above
        for name, deployment in found.items()
        if name.endswith(("-cpu", "-cuda"))
    }


def test_an_application_has_an_ingress_a_control_and_a_runner_for_each_framework() -> None:
    found = built(model_repository=(str(EXAMPLES),))
    assert found.keys() == {"ingress", "control", "onnx-cpu", "tensorflow-cpu", "litert-cpu"}
    assert found["control"].num_replicas == 1
    assert found["control"].init_kwargs["repositories"] == (str(EXAMPLES),)


def test_runners_that_are_needed_start_with_the_application() -> None:
    assert initial_replicas(built(model_repository=(str(EXAMPLES),))) == {
        "onnx-cpu": 1,
        "tensorflow-cpu": 1,
        "litert-cpu": 1,
    }
    assert set(initial_replicas(built()).values()) == {0}


def test_in_explicit_mode_only_what_is_named_is_needed() -> None:
    explicit: dict[str, Any] = {"model_repository": (str(EXAMPLES),), "model_control_mode": "explicit"}
    assert set(initial_replicas(built(**explicit)).values()) == {0}
    named = initial_replicas(built(**explicit, load_model=("digits_litert", "nowhere")))
    assert named == {"onnx-cpu": 0, "tensorflow-cpu": 0, "litert-cpu": 1}
    assert set(initial_replicas(built(**explicit, load_model=("*",))).values()) == {1}


def test_a_repository_that_cannot_be_seen_from_here_is_left_to_control(tmp_path: Path) -> None:
    found = built(model_repository=(str(tmp_path / "elsewhere"),))
    assert set(initial_replicas(found).values()) == {0}


def test_a_runner_has_the_resources_of_its_settings() -> None:
    cuda = {"num_cpus": 2, "num_gpus": 0.5, "resources": {"fast": 1}}
    found = built(runners={"onnx-cuda": cuda, "onnx-cpu": {"num_cpus": 4}, "litert-cpu": {"threads": 3}})
    assert found["onnx-cuda"].ray_actor_options == cuda
    assert found["onnx-cpu"].ray_actor_options == {"num_cpus": 4}
    threads = {name: found[name].init_kwargs["threads"] for name in ("onnx-cuda", "onnx-cpu", "litert-cpu")}
    assert threads == {"onnx-cuda": 2, "onnx-cpu": 4, "litert-cpu": 3}
    assert found["tensorflow-cpu"].init_kwargs["threads"] == 1


@pytest.mark.parametrize("name", ["onnx", "onnx-", "torch-cpu", "onnx-cpu-2", "control", "onnx-abacus"])
def test_a_runner_that_no_framework_and_device_stands_for_is_refused(name: str) -> None:
    with pytest.raises(InferenceError, match="there is no runner deployment") as caught:
        built(runners={name: {}})
    assert caught.value.code is ErrorCode.SYSTEM_CONFIG_INVALID


def test_profile_prod_is_refused_while_nobody_can_be_identified() -> None:
    with pytest.raises(InferenceError, match="no identity source") as caught:
        built(profile="prod")
    assert caught.value.code is ErrorCode.SYSTEM_CONFIG_INVALID
