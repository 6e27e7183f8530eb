"""Handle calls from other Ray applications: arrays in, arrays out, and errors that anyone can unpickle.

The caller need not have Trygon installed, so nothing of Trygon's may travel back: arrays are numpy's, and errors are
Python's own exceptions with the public parts of the error as attributes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

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

    Raises: REQUEST_FIELD_INVALID, TENSOR_DATA_INVALID.
    """
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, "inputs must map names of tensors to arrays")
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, "timeout_s must be a positive number of seconds")
    return InferRequest(
        model=str(model),
        version="" if version is None else str(version),
        id=request_id,
        inputs=tuple(from_array(name, _as_array(name, value)) for name, value in inputs.items()),
        outputs=tuple(RequestedOutput(name) for name in outputs or ()),
        parameters=dict(parameters or {}),
        timeout_us=round(timeout_s * 1e6) if timeout_s else 0,
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
    except ValueError as error:  # ragged nested lists
        raise InferenceError(
            ErrorCode.TENSOR_DATA_INVALID, f"input '{name}' is no array: {error}", tensor=name
        ) from error
