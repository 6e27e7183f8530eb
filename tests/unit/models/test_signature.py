"""The check of requests: whatever a caller sends fits the model or is refused with a code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.errors import ErrorCode, InferenceError
from trygon.models.signature import RequestCheck
from trygon.models.tensors import Buffer, Datatype, InferRequest, RequestedOutput, Tensor, TensorSpec, to_array
from trygon.models.versions import ModelDescription

BATCHING = RequestCheck(
    "m",
    ModelDescription(
        platform="test",
        config=b"",
        max_batch_size=4,
        inputs=(
            TensorSpec("x", Datatype.INT8, (-1, 2)),
            TensorSpec("t", Datatype.BYTES, (-1, -1)),
            TensorSpec("o", Datatype.INT8, (-1, 1), optional=True),
        ),
        outputs=(TensorSpec("y", Datatype.INT8, (-1, 2)), TensorSpec("z", Datatype.INT8, (-1, 2))),
    ),
)
WHOLE = RequestCheck(
    "w",
    ModelDescription("test", b"", 0, (TensorSpec("x", Datatype.INT8, (-1, 2)),), (TensorSpec("y", Datatype.INT8, ()),)),
)


def x(*shape: int, name: str = "x", datatype: Datatype = Datatype.INT8, data: Buffer | None = None) -> Tensor:
    size = 1
    for dimension in shape:
        size *= dimension
    return Tensor(name, datatype, shape, bytes(min(max(size, 0), 100)) if data is None else data)


def t(rows: int) -> Tensor:
    return Tensor("t", Datatype.BYTES, (rows, 1), b"\0\0\0\0" * rows)


def refusal(check: RequestCheck, *inputs: Tensor, outputs: tuple[str, ...] = ()) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        check(InferRequest("m", inputs, outputs=tuple(map(RequestedOutput, outputs))))
    return caught.value


def test_a_request_that_fits_has_its_rows() -> None:
    assert BATCHING(InferRequest("m", (x(3, 2), t(3)))) == 3
    assert BATCHING(InferRequest("m", (x(1, 2), t(1), x(1, 1, name="o")), outputs=(RequestedOutput("z"),))) == 1


def test_a_model_that_does_not_batch_has_one_row_of_any_size() -> None:
    assert WHOLE(InferRequest("w", (x(40, 2),))) == 1
    assert WHOLE(InferRequest("w", (x(0, 2),))) == 1


def test_unknown_missing_and_repeated_inputs_are_refused() -> None:
    error = refusal(BATCHING, x(1, 2), x(1, 1, name="q"))
    assert error.code is ErrorCode.TENSOR_INPUT_UNKNOWN
    assert error.message.startswith("unexpected inference input 'q' for model 'm'")
    error = refusal(BATCHING, x(1, 2))
    assert error.code is ErrorCode.TENSOR_INPUT_MISSING
    assert error.message == "expected 2 inputs but got 1 inputs for model 'm'. Got ['x'], but missing ['t']"
    assert refusal(BATCHING, x(1, 2), t(1), x(1, 2)).code is ErrorCode.TENSOR_NAME_DUPLICATE
    assert refusal(BATCHING).code is ErrorCode.TENSOR_INPUT_MISSING


def test_unknown_and_repeated_outputs_are_refused() -> None:
    error = refusal(BATCHING, x(1, 2), t(1), outputs=("y", "q"))
    assert error.code is ErrorCode.TENSOR_OUTPUT_UNKNOWN
    assert error.message.startswith("unexpected inference output 'q' for model 'm'")
    error = refusal(BATCHING, x(1, 2), t(1), outputs=("y", "z", "y"))
    assert error.code is ErrorCode.TENSOR_NAME_DUPLICATE
    assert error.context["tensor"] == "y"


def test_another_datatype_is_refused() -> None:
    error = refusal(BATCHING, x(1, 2, datatype=Datatype.UINT8), t(1))
    assert error.code is ErrorCode.TENSOR_DATATYPE_MISMATCH
    assert error.message == "inference input 'x' data-type is 'UINT8', but model 'm' expects 'INT8'"


def test_another_shape_is_refused_and_both_are_told() -> None:
    error = refusal(BATCHING, x(1, 3), t(1))
    assert error.code is ErrorCode.TENSOR_SHAPE_MISMATCH
    assert error.message == "unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [1,3]"
    for shape in ((), (2,), (1, 2, 1), (1, -2)):
        assert refusal(BATCHING, x(*shape), t(1)).code is ErrorCode.TENSOR_SHAPE_MISMATCH


def test_an_endless_shape_gets_a_short_answer() -> None:
    assert len(refusal(BATCHING, Tensor("x", Datatype.INT8, (1,) * 100_000, b"")).message) < 200


def test_batches_beyond_the_limit_or_without_rows_are_refused() -> None:
    for rows in (5, 10**18, 10**30):
        error = refusal(BATCHING, Tensor("x", Datatype.INT8, (rows, 2), b""), t(1))
        assert error.code is ErrorCode.TENSOR_BATCH_TOO_LARGE
        assert error.message.startswith("inference request batch-size must be <= 4 for 'm'")
    for rows in (0, -1):
        assert refusal(BATCHING, x(rows, 2), t(1)).code is ErrorCode.TENSOR_SHAPE_INVALID


def test_inputs_with_different_rows_are_refused() -> None:
    error = refusal(BATCHING, x(2, 2), t(3))
    assert error.code is ErrorCode.TENSOR_BATCH_MISMATCH
    assert "it has 3 rows, 'x' has 2" in error.message


def test_bytes_that_do_not_fill_the_shape_are_refused() -> None:
    assert refusal(BATCHING, x(2, 2, data=b"abc"), t(2)).code is ErrorCode.TENSOR_SIZE_MISMATCH
    assert refusal(WHOLE, Tensor("x", Datatype.INT8, (2**62, 2), b"")).code is ErrorCode.TENSOR_SHAPE_INVALID


tensors = st.builds(
    Tensor,
    st.sampled_from(["x", "t", "o", "q", ""]),
    st.sampled_from([Datatype.INT8, Datatype.BYTES]),
    st.lists(st.integers(-2, 5) | st.sampled_from([2**62, 10**30, 1, 2]), max_size=4).map(tuple)
    | st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.binary(max_size=8) | st.integers(0, 4).map(lambda count: b"\0\0\0\0" * count),
)


@given(
    st.sampled_from([BATCHING, WHOLE]),
    st.lists(tensors, max_size=4).map(tuple),
    st.lists(st.builds(RequestedOutput, st.sampled_from(["y", "z", "q"])), max_size=3).map(tuple),
)
def test_any_request_fits_or_is_refused_with_a_code(
    check: RequestCheck, inputs: tuple[Tensor, ...], outputs: tuple[RequestedOutput, ...]
) -> None:
    try:
        rows = check(InferRequest("m", inputs, outputs=outputs))
    except InferenceError as error:
        assert error.code.name.startswith("TENSOR_")  # noqa: PT017 - refusal is one of two right answers
    else:
        assert 1 <= rows <= 4
        assert all(to_array(tensor).shape == tensor.shape for tensor in inputs)
