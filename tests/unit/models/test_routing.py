"""Routing: the version that answers, and an answer for every one that does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion, RoutingTable
from trygon.models.versions import ModelState, VersionStatus


def routed(
    model: str, version: int, state: ModelState = ModelState.READY, reason: str = "", runner: str = "onnx-cpu"
) -> RoutedVersion:
    return RoutedVersion(VersionStatus(model, version, state, reason), runner)


TABLE = RoutingTable(
    [
        routed("digits", 10),
        routed("digits", 9),
        routed("digits", 11, ModelState.LOADING),
        routed("digits", 12, ModelState.UNAVAILABLE, "no model file"),
        routed("busy", 1, ModelState.UNAVAILABLE, "broken"),
        routed("busy", 2, ModelState.LOADING),
        routed("broken", 0, ModelState.UNAVAILABLE, "config.pbtxt:1:1 is wrong"),
        routed("leaving", 1, ModelState.UNLOADING),
        routed("odd", 1, ModelState.UNKNOWN),
    ]
)


def refusal(name: str, version: str = "") -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        TABLE.resolve(name, version)
    return caught.value


def test_without_a_version_the_highest_that_is_ready_answers() -> None:
    assert TABLE.resolve("digits").status.version == 10


def test_a_given_version_answers_however_it_is_written() -> None:
    for version in ("9", "09"):
        found = TABLE.resolve("digits", version)
        assert (found.status.version, found.runner) == (9, "onnx-cpu")


def test_unknown_models_and_versions_are_not_found_in_triton_s_words() -> None:
    error = refusal("nope")
    assert error.code is ErrorCode.MODEL_NOT_FOUND
    assert error.message == "Request for unknown model: 'nope' is not found"
    assert refusal("nope", "3").message == "Request for unknown model: 'nope' is not found"
    error = refusal("digits", "3")
    assert error.code is ErrorCode.MODEL_VERSION_NOT_FOUND
    assert error.message == "Request for unknown model: 'digits' version 3 is not found"


@pytest.mark.parametrize("version", ["0", "-1", "1.0", "one", " 1", "1 ", "+1", "\u0661", "9" * 19, "9" * 100_000, "²"])
def test_versions_that_are_none_are_refused(version: str) -> None:
    for name in ("digits", "nope"):
        error = refusal(name, version)
        assert error.code is ErrorCode.MODEL_VERSION_INVALID
        assert len(error.message) < 300


def test_versions_that_do_not_answer_say_why() -> None:
    assert refusal("digits", "11").code is ErrorCode.MODEL_LOADING
    error = refusal("digits", "12")
    assert error.code is ErrorCode.MODEL_UNAVAILABLE
    assert error.message == "Request for model 'digits' version 12, which is unavailable: no model file"
    assert refusal("leaving").code is ErrorCode.MODEL_NOT_READY
    assert refusal("odd", "1").code is ErrorCode.MODEL_NOT_READY


def test_a_model_that_has_nothing_ready_tells_of_the_version_nearest_to_it() -> None:
    assert refusal("busy").code is ErrorCode.MODEL_LOADING


def test_a_model_that_could_not_be_described_has_no_version_in_its_reason() -> None:
    error = refusal("broken")
    assert error.message == "Request for model 'broken', which is unavailable: config.pbtxt:1:1 is wrong"


def test_ready_versions_ascend_as_numbers() -> None:
    assert TABLE.ready_versions("digits") == ("9", "10")
    assert TABLE.ready_versions("busy") == ()
    assert TABLE.ready_versions("nope") == ()


def test_statuses_are_sorted_by_name_and_version() -> None:
    assert [(status.model, status.version) for status in TABLE.statuses()][:4] == [
        ("broken", 0),
        ("busy", 1),
        ("busy", 2),
        ("digits", 9),
    ]
    assert RoutingTable().statuses() == ()


def test_all_or_one_version_can_be_looked_up_ready_or_not() -> None:
    assert [found.status.version for found in TABLE.find("digits")] == [9, 10, 11, 12]
    assert [found.status.state for found in TABLE.find("digits", "11")] == [ModelState.LOADING]
    with pytest.raises(InferenceError, match="'nope' is not found"):
        TABLE.find("nope")


def test_of_a_version_on_two_runners_the_one_that_is_ready_counts() -> None:
    ready = routed("m", 1, runner="onnx-cpu")
    loading = routed("m", 1, ModelState.LOADING, runner="onnx-cuda")
    for order in ([ready, loading], [loading, ready]):
        assert RoutingTable(order).resolve("m").runner == "onnx-cpu"


@given(st.text(), st.text())
def test_any_lookup_answers_or_is_refused(name: str, version: str) -> None:
    with pytest.raises(InferenceError):
        TABLE.resolve(name + "?", version)
