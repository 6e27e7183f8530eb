"""Handle calls from other Ray applications: arrays in, arrays out, and errors that anyone can unpickle.

The caller need not have Trygon installed, so nothing of Trygon's may travel back: arrays are numpy's, and errors are
Python's own exceptions with the public parts of the error as attributes.
"""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np

from trygon.deployments.api.open_inference.parameters import sort_parameters
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import (
    Array,
    InferRequest,
    InferResponse,
    ParameterValue,
    RequestedOutput,
    from_array,
    to_array,
)

MAX_TIMEOUT_S = 1e9
"""Longest timeout that a caller may set, some thirty years: it still counts in whole microseconds."""


def to_request(
    model: str,
    inputs: Mapping[str, object],
    *,
    version: str | int | None,
    outputs: Sequence[str] | None,
    parameters: Mapping[str, ParameterValue] | None,
    timeout_s: float | None,
    request_id: str,
) -> InferRequest:
    """Return the request for a caller's arrays (anything that numpy makes an array of; text and bytes become BYTES).

    Raises: REQUEST_FIELD_INVALID, REQUEST_PARAMETER_…, TENSOR_DATA_INVALID.
    """
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise _invalid("inputs must map names of tensors to arrays")
    if outputs is not None and (isinstance(outputs, str) or not _are_names(outputs)):
        raise _invalid("outputs must be a sequence of names of tensors")
    if parameters is not None and not (isinstance(parameters, Mapping) and _are_names(parameters)):
        raise _invalid("parameters must map names to values")
    if timeout_s is not None and not (_is_number(timeout_s) and 0 < timeout_s <= MAX_TIMEOUT_S):
        raise _invalid(f"timeout_s must be a positive number of seconds, at most {MAX_TIMEOUT_S:g}")
    given = sort_parameters(parameters or {})
    return InferRequest(
        model=str(model),
        version="" if version is None else str(version),
        id=str(request_id),
        inputs=tuple(from_array(name, _as_array(name, value)) for name, value in inputs.items()),
        outputs=tuple(RequestedOutput(name) for name in outputs or ()),
        parameters=given.custom,
        priority=given.priority,
        # A wait that is shorter than a microsecond is not none at all.
        timeout_us=max(1, round(timeout_s * 1e6)) if timeout_s else given.timeout_us,
    )


def to_arrays(response: InferResponse) -> dict[str, Array]:
    """Return the outputs by name, as arrays of their own (writable); BYTES are object arrays of `bytes`."""
    return {tensor.name: to_array(tensor).copy() for tensor in response.outputs}


def portable_error(error: InferenceError) -> Exception:
    """Return the error as an exception of Python's own.

    LookupError for 404, PermissionError for 401 and 403, TimeoutError for 504, ValueError for other 4xx, RuntimeError
    otherwise. Its attributes `code`, `http_status`, `retryable` and `context` say the rest, and survive pickling.
    """
    status = error.code.http_status
    kinds: dict[int, type[Exception]] = {
        401: PermissionError,
        403: PermissionError,
        404: LookupError,
        504: TimeoutError,
    }
    kind = kinds.get(status, ValueError if 400 <= status < 500 and not error.code.retryable else RuntimeError)
    portable = kind(f"{error.code.name}: {error.message}")
    vars(portable).update(
        code=error.code.name, http_status=status, retryable=error.code.retryable, context=dict(error.context)
    )
    return portable


def _as_array(name: str, value: object) -> Array:
    try:
        return np.asarray(value)
    except Exception as error:  # ragged nested lists, and whatever a caller's own class raises
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID, f"input '{name}' is no array: {error}", tensor=name
        ) from error


def _are_names(values: object) -> bool:
    return isinstance(values, Iterable) and all(isinstance(name, str) for name in values)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _invalid(message: str) -> InferenceError:
    return InferenceError(ErrorCode.REQUEST_FIELD_INVALID, message)
