"""The check of a request against a model's tensors: names, datatypes, shapes, batch and bytes, before anything runs."""

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import shorten
from trygon.models.tensors import Datatype, InferRequest, Tensor, TensorSpec, check_size
from trygon.models.versions import ModelDescription

_MAX_SHOWN_DIMENSIONS = 16


class _InputRule(NamedTuple):
    """An input in the form in which it is checked; `dims` is empty of the batch dimension of a model that batches."""

    datatype: Datatype
    rank: int
    dims: tuple[int, ...]
    any_size: bool
    spec: TensorSpec


class RequestCheck:
    """Checks requests against one model's description, which it compiles once: this runs for every request."""

    def __init__(self, model: str, description: ModelDescription) -> None:
        self._model = model
        self._max_batch_size = description.max_batch_size
        self._first = 1 if description.max_batch_size else 0
        self._rules = {spec.name: self._rule(spec) for spec in description.inputs}
        self._required = frozenset(spec.name for spec in description.inputs if not spec.optional)
        self._outputs = frozenset(spec.name for spec in description.outputs)

    def __call__(self, request: InferRequest) -> int:
        """Return the rows of a request that fits; a model that does not batch always has 1.

        Raises: TENSOR_INPUT_UNKNOWN, TENSOR_INPUT_MISSING, TENSOR_NAME_DUPLICATE, TENSOR_OUTPUT_UNKNOWN,
        TENSOR_DATATYPE_MISMATCH, TENSOR_SHAPE_INVALID, TENSOR_SHAPE_MISMATCH, TENSOR_BATCH_TOO_LARGE,
        TENSOR_BATCH_MISMATCH, TENSOR_SIZE_MISMATCH. The texts are near Triton's, which clients know.
        """
        rows = 0
        names = set()
        for tensor in request.inputs:
            rule = self._rules.get(tensor.name)
            if rule is None:
                self._refuse_unknown("input", tensor.name, ErrorCode.TENSOR_INPUT_UNKNOWN, list(self._rules))
            names.add(tensor.name)
            self._check_input(tensor, rule)
            if self._first:
                rows = rows or tensor.shape[0]
                if tensor.shape[0] != rows:
                    self._refuse_rows(tensor, request.inputs[0])
        if len(names) != len(request.inputs):
            self._refuse_duplicate("input", [tensor.name for tensor in request.inputs])
        if not self._required <= names:
            self._refuse_missing(names)
        if request.outputs:
            self._check_outputs(request)
        return rows or 1

    def _rule(self, spec: TensorSpec) -> _InputRule:
        dims = spec.shape[self._first :]
        return _InputRule(spec.datatype, len(spec.shape), dims, -1 in dims, spec)

    def _check_input(self, tensor: Tensor, rule: _InputRule) -> None:
        if tensor.datatype != rule.datatype:
            raise self._error(
                ErrorCode.TENSOR_DATATYPE_MISMATCH,
                f"inference input '{tensor.name}' data-type is '{tensor.datatype}', but model '{self._model}' expects"
                f" '{rule.datatype}'",
                tensor.name,
            )
        shape = tensor.shape
        dims = shape[self._first :]
        if len(shape) != rule.rank or (dims != rule.dims and not (rule.any_size and _fits(dims, rule.dims))):
            raise self._error(
                ErrorCode.TENSOR_SHAPE_MISMATCH,
                f"unexpected shape for input '{tensor.name}' for model '{self._model}'. Expected"
                f" {_shown(rule.spec.shape)}, got {_shown(shape)}",
                tensor.name,
            )
        if self._first:
            self._check_rows(shape[0], tensor.name)
        check_size(tensor)

    def _check_rows(self, rows: int, tensor: str) -> None:
        if rows < 1:
            raise self._error(
                ErrorCode.TENSOR_SHAPE_INVALID,
                f"input '{tensor}' for model '{self._model}' has {rows} rows; send at least one",
                tensor,
            )
        if rows > self._max_batch_size:
            raise self._error(
                ErrorCode.TENSOR_BATCH_TOO_LARGE,
                f"inference request batch-size must be <= {self._max_batch_size} for '{self._model}', got {rows}",
                tensor,
            )

    def _check_outputs(self, request: InferRequest) -> None:
        names = {output.name for output in request.outputs}
        if not names <= self._outputs:
            unknown = next(output.name for output in request.outputs if output.name not in self._outputs)
            self._refuse_unknown("output", unknown, ErrorCode.TENSOR_OUTPUT_UNKNOWN, sorted(self._outputs))
        if len(names) != len(request.outputs):
            self._refuse_duplicate("output", [output.name for output in request.outputs])

    def _refuse_unknown(self, kind: str, name: str, code: ErrorCode, known: Sequence[str]) -> NoReturn:
        raise self._error(
            code,
            f"unexpected inference {kind} '{shorten(name)}' for model '{self._model}'. Its {kind}s are {known}",
            shorten(name),
        )

    def _refuse_duplicate(self, kind: str, names: Sequence[str]) -> NoReturn:
        name = next(name for index, name in enumerate(names) if name in names[:index])
        raise self._error(
            ErrorCode.TENSOR_NAME_DUPLICATE,
            f"inference {kind} '{name}' for model '{self._model}' is there more than once",
            name,
        )

    def _refuse_missing(self, names: set[str]) -> NoReturn:
        missing = sorted(self._required - names)
        raise self._error(
            ErrorCode.TENSOR_INPUT_MISSING,
            f"expected {len(self._required)} inputs but got {len(names)} inputs for model '{self._model}'. Got"
            f" {sorted(names)}, but missing {missing}",
            missing[0],
        )

    def _refuse_rows(self, tensor: Tensor, first: Tensor) -> NoReturn:
        raise self._error(
            ErrorCode.TENSOR_BATCH_MISMATCH,
            f"input '{tensor.name}' batch size does not match other inputs for '{self._model}': it has"
            f" {tensor.shape[0]} rows, '{first.name}' has {first.shape[0]}",
            tensor.name,
        )

    def _error(self, code: ErrorCode, message: str, tensor: str) -> InferenceError:
        return InferenceError(code, message, model=self._model, tensor=tensor)


def _fits(dims: Sequence[int], expected: Sequence[int]) -> bool:
    return all(want in {-1, size} for size, want in zip(dims, expected, strict=True))


def _shown(shape: Sequence[int]) -> str:
    """Return a shape in Triton's spelling; a caller may send millions of dimensions, the answer shows a few."""
    dimensions = [str(dimension) for dimension in shape[:_MAX_SHOWN_DIMENSIONS]]
    return f"[{','.join(dimensions)}{',…' if len(shape) > _MAX_SHOWN_DIMENSIONS else ''}]"
