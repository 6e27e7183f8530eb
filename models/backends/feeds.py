"""What may be fed to a model: the check that a runtime leaves to its caller."""

from collections.abc import Mapping

from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import Array, TensorSpec


def check_feeds(specs: Mapping[str, TensorSpec], inputs: Mapping[str, Array], *, any_rank: frozenset[str]) -> None:
    """Check dtype and shape of each input against its spec; inputs in `any_rank` have no shape to be checked.

    Raises: RUNNER_INPUT_REJECTED, naming the input. An input without a spec is a KeyError: callers validate names.
    """
    for name, array in inputs.items():
        spec = specs[name]
        if array.dtype != spec.datatype.numpy:
            raise _rejected(name, f"has dtype {array.dtype}; the model takes {spec.datatype}")
        if name not in any_rank and not _fits(array.shape, spec.shape):
            raise _rejected(name, f"has shape {list(array.shape)}; the model takes {list(spec.shape)}")


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (-1, size) for size, wanted in zip(shape, expected, strict=True)
    )


def _rejected(name: str, fault: str) -> InferenceError:
    return InferenceError(ErrorCode.RUNNER_INPUT_REJECTED, f"input '{name}' {fault}", tensor=name)
