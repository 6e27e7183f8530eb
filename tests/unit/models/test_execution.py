"""One execution: requests become a batch, and each gets its own rows back."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Signature
from trygon.models.execution import Executor, shape_key
from trygon.models.tensors import Array, Datatype, InferRequest, RequestedOutput, TensorSpec, from_array, to_array
from trygon.models.versions import ModelDescription


class Model:
    """A loaded model that does what the test says and remembers its batches."""

    def __init__(self, function: Callable[[Mapping[str, Array]], dict[str, Array]]) -> None:
        self._function = function
        self.batches: list[dict[str, Array]] = []
        self.asked: list[list[str]] = []
        self.signature = Signature("test", (), (), batches=True)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.batches.append(dict(inputs))
        self.asked.append(list(outputs))
        return self._function(inputs)

    def close(self) -> None:
        """Nothing is held."""


def description(*, max_batch_size: int = 8) -> ModelDescription:
    batch = (-1,) if max_batch_size else ()
    outputs = (
        TensorSpec("double", Datatype.FP32, (*batch, 2)),
        TensorSpec("sum", Datatype.FP32, batch or (1,)),
    )
    return ModelDescription("test", b"", max_batch_size, (TensorSpec("x", Datatype.FP32, (*batch, 2)),), outputs)


def arithmetic(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"double": inputs["x"] * 2, "sum": inputs["x"].sum(axis=-1)}


def request(rows: list[list[float]], *outputs: str, identity: str = "") -> InferRequest:
    x = np.array(rows, dtype=np.float32)
    return InferRequest("m", (from_array("x", x),), id=identity, outputs=tuple(map(RequestedOutput, outputs)))


def test_each_request_gets_its_own_rows() -> None:
    model = Model(arithmetic)
    execution = Executor(model, description(), "m", "3")(
        [request([[1, 2]], identity="a"), request([[3, 4], [5, 6]], identity="b")], [1, 2], [7, 8]
    )
    first, second = execution.responses
    assert (first.id, first.model, first.version) == ("a", "m", "3")
    assert to_array(first.outputs[0]).tolist() == [[2, 4]]
    assert to_array(second.outputs[0]).tolist() == [[6, 8], [10, 12]]
    assert to_array(second.outputs[1]).tolist() == [7, 11]
    assert execution.rows == 3
    assert (first.queue_ns, second.queue_ns) == (7, 8)
    assert first.compute_ns == second.compute_ns == execution.input_ns + execution.infer_ns
    assert len(model.batches) == 1


def test_outputs_come_in_the_order_asked_for_and_only_those_are_run() -> None:
    model = Model(arithmetic)
    run = Executor(model, description(), "m", "1")
    (response,) = run([request([[1, 2]], "sum")], [1], [0]).responses
    assert [tensor.name for tensor in response.outputs] == ["sum"]
    assert model.asked == [["sum"]]
    (response,) = run([request([[1, 2]], "sum", "double")], [1], [0]).responses
    assert [tensor.name for tensor in response.outputs] == ["sum", "double"]


def test_a_batch_runs_all_outputs_that_any_of_its_requests_wants() -> None:
    model = Model(arithmetic)
    run = Executor(model, description(), "m", "1")
    one, both = run([request([[1, 2]], "sum"), request([[1, 2]])], [1, 1], [0, 0]).responses
    assert [tensor.name for tensor in one.outputs] == ["sum"]
    assert [tensor.name for tensor in both.outputs] == ["double", "sum"]


def test_a_model_that_does_not_batch_gives_its_outputs_whole() -> None:
    model = Model(lambda inputs: {"double": inputs["x"] * 2, "sum": inputs["x"].sum(keepdims=True)})
    x = from_array("x", np.array([1, 2], dtype=np.float32))
    (response,) = Executor(model, description(max_batch_size=0), "m", "1")(
        [InferRequest("m", (x,))], [1], [0]
    ).responses
    assert to_array(response.outputs[0]).tolist() == [2, 4]
    assert to_array(response.outputs[1]).tolist() == [3]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda x: {"double": x[:1] * 2, "sum": x.sum(axis=-1)}, id="too few rows"),
        pytest.param(lambda x: {"double": x.sum(), "sum": x.sum(axis=-1)}, id="no batch dimension"),
        pytest.param(lambda x: {"double": x.astype(np.float64), "sum": x.sum(axis=-1)}, id="other dtype"),
    ],
)
def test_an_output_that_the_metadata_does_not_describe_is_the_models_fault(
    broken: Callable[[Array], dict[str, Array]],
) -> None:
    model = Model(lambda inputs: broken(inputs["x"]))
    with pytest.raises(InferenceError) as caught:
        Executor(model, description(), "m", "1")([request([[1, 2]]), request([[3, 4]])], [1, 1], [0, 0])
    assert caught.value.code is ErrorCode.RUNNER_OUTPUT_INVALID


def test_only_requests_of_equal_names_datatypes_and_inner_shapes_share_a_key() -> None:
    assert shape_key(request([[1, 2]])) == shape_key(request([[1, 2], [3, 4]]))
    assert shape_key(request([[1, 2]])) != shape_key(request([[1, 2, 3]]))
    renamed = InferRequest("m", (from_array("y", np.zeros((1, 2), dtype=np.float32)),))
    retyped = InferRequest("m", (from_array("x", np.zeros((1, 2), dtype=np.int32)),))
    assert len({shape_key(request([[1, 2]])), shape_key(renamed), shape_key(retyped)}) == 3
