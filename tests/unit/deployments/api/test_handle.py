"""Handle calls from other applications: arrays become tensors, and errors become what anyone can unpickle."""

import pickle
from typing import Any

import numpy as np
import pytest

from trygon.deployments.api.handle import portable_error, to_arrays, to_request
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import Datatype, InferRequest, InferResponse, RequestedOutput, from_array


def request(inputs: Any, **options: Any) -> InferRequest:
    given: dict[str, Any] = {
        "version": None,
        "outputs": None,
        "parameters": None,
        "timeout_s": None,
        "request_id": "id",
    }
    return to_request("m", inputs, **(given | options))


def code_of(inputs: Any, **options: Any) -> ErrorCode:
    with pytest.raises(InferenceError) as caught:
        request(inputs, **options)
    return caught.value.code


class Hostile:
    """A caller's class that numpy asks for an array."""

    def __array__(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")


def test_arrays_lists_text_and_bytes_become_tensors() -> None:
    found = request({"a": np.ones((2, 3), np.float32), "b": [[1, 2]], "c": ["é", "x"], "d": [b"\xff"]})
    assert [(item.name, item.datatype, item.shape) for item in found.inputs] == [
        ("a", Datatype.FP32, (2, 3)),
        ("b", Datatype.INT64, (1, 2)),
        ("c", Datatype.BYTES, (2,)),
        ("d", Datatype.BYTES, (1,)),
    ]
    assert (found.version, found.id, found.outputs, found.timeout_us, found.priority) == ("", "id", (), 0, 0)


def test_everything_else_that_a_caller_may_say_is_taken_over() -> None:
    found = request(
        {},
        version=3,
        outputs=("y",),
        parameters={"priority": 2, "timeout": 70, "own": "value"},
    )
    assert (found.version, found.outputs, found.priority, found.timeout_us) == ("3", (RequestedOutput("y"),), 2, 70)
    assert found.parameters == {"own": "value"}
    assert request({}, timeout_s=np.float32(0.5), parameters={"timeout": 70}).timeout_us == 500_000


def test_a_timeout_that_rounds_to_nothing_is_still_one() -> None:
    assert request({}, timeout_s=1e-12).timeout_us == 1


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e300, 10**400, True, "1"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout_s: Any) -> None:
    assert code_of({}, timeout_s=timeout_s) is ErrorCode.REQUEST_FIELD_INVALID


@pytest.mark.parametrize("inputs", [None, [1], "x", {1: [1]}])
def test_inputs_that_are_no_mapping_of_names_are_refused(inputs: Any) -> None:
    assert code_of(inputs) is ErrorCode.REQUEST_FIELD_INVALID


@pytest.mark.parametrize("outputs", ["probabilities", 5, [1], [b"y"]])
def test_outputs_that_are_no_names_are_refused(outputs: Any) -> None:
    assert code_of({}, outputs=outputs) is ErrorCode.REQUEST_FIELD_INVALID


@pytest.mark.parametrize("parameters", [5, ["priority"], {1: 2}])
def test_parameters_that_are_no_mapping_of_names_are_refused(parameters: Any) -> None:
    assert code_of({}, parameters=parameters) is ErrorCode.REQUEST_FIELD_INVALID


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"triton_x": 1}, ErrorCode.REQUEST_PARAMETER_RESERVED),
        ({"sequence_id": 1}, ErrorCode.REQUEST_PARAMETER_UNSUPPORTED),
        ({"priority": -1}, ErrorCode.REQUEST_PARAMETER_INVALID),
        ({"own": [1]}, ErrorCode.REQUEST_PARAMETER_INVALID),
    ],
)
def test_parameters_obey_the_same_rules_as_over_the_wire(parameters: Any, code: ErrorCode) -> None:
    assert code_of({}, parameters=parameters) is code


@pytest.mark.parametrize("value", [[[1], [1, 2]], Hostile(), object(), np.ones(1, np.complex64), [None]])
def test_a_value_that_is_no_tensor_is_refused(value: Any) -> None:
    assert code_of({"x": value}) is ErrorCode.TENSOR_DATA_INVALID


def test_outputs_are_arrays_that_the_caller_may_write_to() -> None:
    tensors = (from_array("y", np.arange(3, dtype=np.int16)), from_array("s", np.array([b"a"], object)))
    found = to_arrays(InferResponse("m", "1", "", tensors))
    found["y"][0] = 7
    assert found["y"].tolist() == [7, 1, 2]
    assert found["s"].tolist() == [b"a"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.MODEL_NOT_FOUND, LookupError),
        (ErrorCode.TENSOR_SHAPE_MISMATCH, ValueError),
        (ErrorCode.AUTH_REQUIRED, PermissionError),
        (ErrorCode.AUTH_FORBIDDEN, PermissionError),
        (ErrorCode.REQUEST_TIMEOUT, TimeoutError),
        (ErrorCode.QUOTA_EXCEEDED, RuntimeError),
        (ErrorCode.RUNNER_DIED, RuntimeError),
        (ErrorCode.REQUEST_FEATURE_UNSUPPORTED, RuntimeError),
    ],
)
def test_an_error_becomes_one_of_pythons_own_and_keeps_what_it_says(code: ErrorCode, kind: type[Exception]) -> None:
    sent = pickle.dumps(portable_error(InferenceError(code, "what happened", model="m")))
    error: Any = pickle.loads(sent)  # noqa: S301 - our own
    assert type(error) is kind
    assert str(error) == f"{code.name}: what happened"
    assert (error.code, error.http_status, error.retryable) == (code.name, code.http_status, code.retryable)
    assert error.context == {"model": "m"}
