"""The desired state: what should be loaded, and what the replicas' reports make of it."""

from dataclasses import replace

import pytest

from trygon.deployments.desired import DesiredState
from trygon.deployments.messages import ReplicaReport
from trygon.errors import ErrorCode, InferenceError
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import ModelState, VersionSpec, VersionStatus


def spec(version: int = 1, generation: str = "a", runner: str = "onnx-cpu", model: str = "m") -> VersionSpec:
    return VersionSpec(model, version, runner, f"/models/{model}", f"/models/{model}/{version}", b"", generation)


def ready(of: VersionSpec, reason: str = "", attempted: str = "") -> VersionStatus:
    return VersionStatus(of.model, of.version, ModelState.READY, reason, of.generation, attempted or of.generation)


def failed(of: VersionSpec, reason: str = "no model") -> VersionStatus:
    return VersionStatus(of.model, of.version, ModelState.UNAVAILABLE, reason, "", of.generation)


def loading(of: VersionSpec) -> VersionStatus:
    return VersionStatus(of.model, of.version, ModelState.LOADING)


def report(*statuses: VersionStatus, replica: str = "r1", runner: str = "onnx-cpu", rows: int = 0) -> ReplicaReport:
    statistics = tuple(
        ModelStatistics(status.model, status.version, inference_count=rows) for status in statuses if rows
    )
    return ReplicaReport(replica, runner, (), statuses, statistics)


def states(state: DesiredState) -> dict[tuple[str, int], str]:
    return {(row.status.model, row.status.version): str(row.status.state) for row in state.table()}


@pytest.fixture
def state() -> DesiredState:
    return DesiredState()


def test_a_wanted_version_is_loading_until_a_replica_has_it(state: DesiredState) -> None:
    state.want("m", (spec(),))
    assert states(state) == {("m", 1): "LOADING"}
    assert not state.settled("m")
    assert state.missing() == {"m": "waiting for a replica"}
    state.take(report(loading(spec())))
    assert states(state) == {("m", 1): "LOADING"}
    state.take(report(ready(spec())))
    assert states(state) == {("m", 1): "READY"}
    assert state.settled("m")
    assert state.missing() == {}


def test_each_runner_is_told_of_its_own_versions_only(state: DesiredState) -> None:
    other = spec(model="n", runner="litert-cpu")
    state.want("m", (spec(),))
    state.want("n", (other,))
    assert state.desired("onnx-cpu") == (spec(),)
    assert state.desired("litert-cpu") == (other,)


def test_a_version_that_does_not_load_is_unavailable_with_its_reason(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(failed(spec(), "bad magic")))
    assert states(state) == {("m", 1): "UNAVAILABLE"}
    assert state.missing() == {"m": "bad magic"}
    assert state.settled("m")


def test_one_replica_that_can_serve_is_enough(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec())))
    state.take(report(loading(spec()), replica="r2"))
    assert states(state) == {("m", 1): "READY"}
    assert not state.settled("m")


def test_the_old_version_stays_until_the_new_one_serves(state: DesiredState) -> None:
    old, new = spec(1), spec(2)
    state.want("m", (old,))
    state.take(report(ready(old)))
    state.want("m", (new,))
    assert state.desired("onnx-cpu") == (new, old)
    state.take(report(ready(old), loading(new)))
    assert states(state) == {("m", 1): "READY", ("m", 2): "LOADING"}
    state.take(report(ready(old), ready(new)))
    assert state.desired("onnx-cpu") == (new,)
    assert states(state) == {("m", 1): "UNLOADING", ("m", 2): "READY"}


def test_the_old_version_stays_when_the_new_one_does_not_load(state: DesiredState) -> None:
    old, new = spec(1), spec(2)
    state.want("m", (old,))
    state.take(report(ready(old)))
    state.want("m", (new,))
    state.take(report(ready(old), failed(new)))
    assert state.desired("onnx-cpu") == (new, old)
    assert states(state) == {("m", 1): "READY", ("m", 2): "UNAVAILABLE"}


def test_a_broken_reload_keeps_serving_the_old_generation_and_says_why(state: DesiredState) -> None:
    state.want("m", (spec(generation="a"),))
    state.take(report(ready(spec(generation="a"))))
    state.want("m", (spec(generation="b"),))
    assert not state.settled("m")
    state.take(report(ready(spec(generation="a"), reason="bad magic", attempted="b")))
    assert state.settled("m")
    (row,) = state.table()
    assert row.status.state is ModelState.READY
    assert row.status.reason == "bad magic"


def test_a_fault_of_a_model_that_serves_is_shown_beside_its_state(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec())))
    state.blame("m", InferenceError(ErrorCode.MODEL_CONFIG_INVALID, "config.pbtxt: line 3"))
    (row,) = state.table()
    assert row.status.state is ModelState.READY
    assert row.status.reason == "config.pbtxt: line 3"


def test_a_model_that_cannot_be_described_is_unavailable(state: DesiredState) -> None:
    state.blame("m", InferenceError(ErrorCode.MODEL_CONFIG_INVALID, "config.pbtxt: line 3"))
    assert states(state) == {("m", 0): "UNAVAILABLE"}
    assert state.missing() == {"m": "config.pbtxt: line 3"}


def test_a_model_whose_load_was_refused_is_shown_but_not_missing(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.give_up("m", "bad magic")
    assert states(state) == {("m", 1): "UNAVAILABLE"}
    assert state.missing() == {}
    assert state.desired("onnx-cpu") == ()


def test_an_unloaded_model_is_unloading_until_no_replica_has_it(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec())))
    state.forget("m")
    assert not state.settled("m")
    assert states(state) == {("m", 1): "UNLOADING"}
    state.take(report(replace(ready(spec()), state=ModelState.UNLOADING)))
    assert states(state) == {("m", 1): "UNLOADING"}
    state.take(report())
    assert states(state) == {}
    assert state.settled("m")


def test_a_dead_replica_takes_its_versions_with_it_but_not_what_it_counted(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec()), rows=3))
    state.retain("onnx-cpu", frozenset())
    assert states(state) == {("m", 1): "LOADING"}
    state.take(report(ready(spec()), replica="r2", rows=4))
    assert state.statistics()["m", 1].inference_count == 7


def test_replicas_of_other_runners_are_retained(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec())))
    state.retain("litert-cpu", frozenset())
    assert states(state) == {("m", 1): "READY"}


def test_a_version_that_moves_to_another_runner_is_listed_once(state: DesiredState) -> None:
    here, there = spec(runner="onnx-cpu"), spec(runner="onnx-cuda")
    state.want("m", (here,))
    state.take(report(ready(here)))
    state.want("m", (there,))
    rows = state.table()
    assert [(row.runner, row.status.state) for row in rows] == [("onnx-cpu", ModelState.READY)]
    state.take(report(ready(there), replica="r2", runner="onnx-cuda"))
    assert [row.runner for row in state.table()] == ["onnx-cuda"]


def test_the_revision_grows_with_every_change_and_only_then(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec())))
    revision = state.revision
    state.take(report(ready(spec()), rows=5))
    state.forget("unknown")
    assert state.revision == revision
    state.take(report(failed(spec())))
    assert state.revision > revision


def test_what_replicas_were_told_can_be_learned_back(state: DesiredState) -> None:
    state.take(ReplicaReport("r1", "onnx-cpu", (spec(),), (), ()))
    state.take(ReplicaReport("r2", "onnx-cpu", (spec(),), (), ()))
    state.adopt()
    assert state.specs("m") == (spec(),)


def test_what_a_starting_replica_has_is_not_ready_yet(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(replace(report(ready(spec())), serving=False))
    assert states(state) == {("m", 1): "LOADING"}
    assert state.missing() == {"m": "waiting for its replica to take requests"}
    assert not state.settled("m")
    assert not state.served("onnx-cpu")
    state.take(report(ready(spec())))
    assert states(state) == {("m", 1): "READY"}
    assert state.served("onnx-cpu")


def test_a_starting_replica_holds_no_load_up(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec())))
    state.take(replace(report(loading(spec()), replica="r2"), serving=False))
    assert state.settled("m")


def test_an_older_report_changes_nothing(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(replace(report(ready(spec())), sequence=2))
    revision = state.revision
    state.take(replace(report(loading(spec())), sequence=1))
    assert states(state) == {("m", 1): "READY"}
    assert state.revision == revision


def test_a_replica_that_was_only_unreachable_is_not_counted_twice(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec()), rows=3))
    state.retain("onnx-cpu", frozenset())
    assert state.statistics()["m", 1].inference_count == 3
    state.take(report(ready(spec()), rows=5))
    assert state.statistics()["m", 1].inference_count == 5


def test_a_model_that_is_unloaded_takes_its_counts_with_it(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(ready(spec()), rows=3))
    state.retain("onnx-cpu", frozenset())
    state.forget("m")
    state.want("m", (spec(),))
    assert state.statistics() == {}


def test_a_version_that_leaves_two_replicas_is_listed_once(state: DesiredState) -> None:
    state.take(report(ready(spec())))
    state.take(report(ready(spec()), replica="r2"))
    assert len(state.table()) == 1


def test_a_refused_model_is_listed_once_with_its_reason(state: DesiredState) -> None:
    state.want("m", (spec(),))
    state.take(report(failed(spec(), "bad magic")))
    state.give_up("m", "bad magic")
    (row,) = state.table()
    assert (row.status.state, row.status.reason) == (ModelState.UNAVAILABLE, "bad magic")
    state.forget("m")
    state.take(report())
    assert state.table() == ()


def test_versions_that_a_policy_names_and_nobody_has_are_shown_and_not_missing(state: DesiredState) -> None:
    state.want("m", (spec(1),), absent=(1, 7))
    state.take(report(ready(spec(1))))
    assert states(state) == {("m", 1): "READY", ("m", 7): "UNAVAILABLE"}
    assert state.missing() == {}
    assert state.follows("m", (spec(1),), (1, 7))
    assert not state.follows("m", (spec(1),), ())


def test_the_same_fault_again_is_no_news(state: DesiredState) -> None:
    fault = InferenceError(ErrorCode.MODEL_CONFIG_INVALID, "config.pbtxt: line 3")
    state.blame("m", fault)
    revision = state.revision
    state.blame("m", InferenceError(ErrorCode.MODEL_CONFIG_INVALID, "config.pbtxt: line 3"))
    assert state.revision == revision
    state.blame("m", InferenceError(ErrorCode.MODEL_CONFIG_INVALID, "config.pbtxt: line 4"))
    assert state.revision > revision


def test_a_broken_new_generation_is_given_up_for_the_one_that_serves(state: DesiredState) -> None:
    old, new = spec(generation="a"), spec(generation="b")
    state.want("m", (old,))
    state.take(report(ready(old)))
    state.want("m", (new,))
    state.take(report(ready(old, reason="bad magic", attempted="b")))
    assert state.shortfall("m") == "bad magic"
    state.give_up("m", "bad magic")
    assert state.desired("onnx-cpu") == (old,)
    assert state.shortfall("m") == ""
    assert state.missing() == {}
    state.take(report(ready(old)))
    (row,) = state.table()
    assert row.status.reason == "bad magic"
    assert not state.follows("m", (old,), ())


def test_a_model_that_was_wanted_before_stays_so_when_it_fails_again(state: DesiredState) -> None:
    state.want("m", (spec(generation="a"),))
    state.take(report(failed(spec(generation="a"))))
    state.want("m", (spec(generation="b"),))
    state.take(report(failed(spec(generation="b"), "still bad")))
    state.give_up("m", "still bad")
    assert state.missing() == {"m": "still bad"}


def test_a_first_load_of_which_one_version_serves_stays(state: DesiredState) -> None:
    state.want("m", (spec(1), spec(2)))
    state.take(report(ready(spec(1)), failed(spec(2))))
    assert state.shortfall("m") == "no model"
    state.give_up("m", "no model")
    assert states(state) == {("m", 1): "READY", ("m", 2): "UNAVAILABLE"}


def test_a_load_that_nobody_answers_says_so(state: DesiredState) -> None:
    state.want("m", (spec(generation="a"),))
    state.take(report(ready(spec(generation="a"))))
    state.want("m", (spec(generation="b"),))
    assert state.shortfall("m") == "no replica answered in time"


def test_generations_that_failed_are_marked_to_be_tried_and_others_are_left_alone(state: DesiredState) -> None:
    state.take(report(failed(spec(1, "a")), ready(spec(2, "a"))))
    assert state.renewed((spec(1, "a"), spec(2, "a"), spec(1, "b")), "x") == (
        spec(1, "a+x"),
        spec(2, "a"),
        spec(1, "b"),
    )
    state.take(report(failed(spec(1, "a+x"))))
    assert state.renewed((spec(1, "a"),), "y") == (spec(1, "a+y"),)


def test_of_two_generations_the_one_that_serves_is_adopted(state: DesiredState) -> None:
    old, new = spec(generation="a"), spec(generation="b")
    other = spec(2)
    state.take(ReplicaReport("r1", "onnx-cpu", (new,), (ready(old),), ()))
    state.take(ReplicaReport("r2", "onnx-cpu", (old, other), (ready(old),), ()))
    state.take(ReplicaReport("r3", "onnx-cpu", (new,), (), ()))
    state.adopt()
    assert set(state.specs("m")) == {old, other}


def test_the_folders_of_a_model_are_those_that_replicas_may_load_from(state: DesiredState) -> None:
    old, new = spec(1), replace(spec(2), model_path="/sent/m")
    state.want("m", (old,))
    state.want("m", (new,))
    assert state.folders("m") == {"/models/m", "/sent/m"}
    assert state.folders("unknown") == frozenset()
