"""The parameters of an inference request: which are the protocol's own, and which are the caller's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import ParameterValue

RESERVED_PREFIX: Final = "triton_"
EMPTY_FINAL_RESPONSE: Final = "triton_enable_empty_final_response"
FINAL_RESPONSE: Final = "triton_final_response"

_MAX_UINT64: Final = 2**64 - 1
_MAX_INT64: Final = 2**63 - 1
_SEQUENCE: Final = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY: Final = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """A request's parameters, sorted: the protocol's own as fields, the caller's as `custom`.

    `priority` is 0 for the model's default level and else 1 (first) and upwards; `timeout_us` is 0 for none.
    """

    custom: dict[str, ParameterValue] = field(default_factory=dict)
    priority: int = 0
    timeout_us: int = 0
    binary_data_output: bool = False


NO_PARAMETERS: Final = RequestParameters()


def sort_parameters(given: Mapping[str, Any]) -> RequestParameters:
    """Sort and check a request's parameters. Source: the parameters extension of Triton's KServe v2 protocol.

    Raises: REQUEST_PARAMETER_RESERVED, REQUEST_PARAMETER_UNSUPPORTED, REQUEST_PARAMETER_INVALID.
    """
    if not given:
        return NO_PARAMETERS
    custom = {name: value for name, value in given.items() if name not in _OWN}
    for name, value in custom.items():
        if name.startswith(RESERVED_PREFIX) or name == "headers":
            raise InferenceError(
                ErrorCode.REQUEST_PARAMETER_RESERVED, f"the parameter name '{name}' is reserved", parameter=name
            )
        if not isinstance(value, bool | int | float | str):
            raise _invalid(name, "a boolean, a number or a string")
    if given.get("sequence_id"):
        raise InferenceError(
            ErrorCode.REQUEST_PARAMETER_UNSUPPORTED,
            "the parameter 'sequence_id' is not supported: this server has no stateful models",
            parameter="sequence_id",
        )
    if type(given.get(EMPTY_FINAL_RESPONSE, False)) is not bool:
        raise _invalid(EMPTY_FINAL_RESPONSE, "true or false")
    return RequestParameters(
        custom=custom,
        priority=integer_parameter(given, "priority", _MAX_UINT64),
        timeout_us=integer_parameter(given, "timeout", _MAX_INT64),
        binary_data_output=boolean_parameter(given, "binary_data_output") or False,
    )


def integer_parameter(given: Mapping[str, Any], name: str, largest: int) -> int:
    """Return a parameter between 0 and `largest`; 0 where it is absent.

    Raises: REQUEST_PARAMETER_INVALID.
    """
    value = given.get(name, 0)
    if type(value) is not int or not 0 <= value <= largest:
        raise _invalid(name, f"an integer between 0 and {largest}")
    return value


def boolean_parameter(given: Mapping[str, Any], name: str) -> bool | None:
    """Return a parameter that is true or false; None where it is absent.

    Raises: REQUEST_PARAMETER_INVALID.
    """
    value = given.get(name)
    if name in given and type(value) is not bool:
        raise _invalid(name, "true or false")
    return value


def class_count(given: Mapping[str, Any]) -> int:
    """Return how many top classes the parameters of a requested output ask for; 0 for the tensor itself.

    Raises: REQUEST_PARAMETER_INVALID.
    """
    return integer_parameter(given, "classification", _MAX_INT64)


def refuse_shared_memory(given: Mapping[str, Any], tensor: str) -> None:
    """Refuse a tensor whose data is said to lie in shared memory.

    Raises: REQUEST_PARAMETER_UNSUPPORTED.
    """
    for name in _SHARED_MEMORY:
        if name in given:
            raise InferenceError(
                ErrorCode.REQUEST_PARAMETER_UNSUPPORTED,
                f"the parameter '{name}' of tensor '{tensor}' is not supported: send the data with the request",
                parameter=name,
                tensor=tensor,
            )


def _invalid(name: str, expected: str) -> InferenceError:
    return InferenceError(
        ErrorCode.REQUEST_PARAMETER_INVALID, f"the parameter '{name}' must be {expected}", parameter=name
    )


_OWN: Final = frozenset({"priority", "timeout", "binary_data_output", EMPTY_FINAL_RESPONSE, *_SEQUENCE})
