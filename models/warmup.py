"""Warm-up: the `model_warmup` samples of a configuration as batches of arrays, to run before a version is READY."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import datatype_of_config
from trygon.models.names import existing_file, shorten
from trygon.models.proto.model_config_pb2 import ModelConfig, ModelInput, ModelWarmup
from trygon.models.tensors import Array, Datatype, Tensor, check_size, element_count, to_array

WARMUP_FOLDER: Final = "warmup"
MAX_WARMUP_BYTES: Final = 256 * 1024 * 1024
"""Largest input of one warm-up sample."""
_STRING_BYTES: Final = 64
"""What an element of BYTES counts for: about the memory that a short one takes."""
MAX_WARMUP_COUNT: Final = 10_000
"""Most runs of one sample: beyond that a configuration keeps a model from ever being READY."""
_RANDOM_BELOW: Final = 100
"""Random integers stay below this, which int8 holds: across the whole range most would be no valid index or id."""


def warmup_batches(config: ModelConfig, model_path: Path) -> Iterator[dict[str, Array]]:
    """Yield the batches of a complete configuration's `model_warmup`, each as often as its `count` says.

    Shapes are those that callers send (see reshape.with_reshape), with the batch dimension if the model batches.
    `zero_data` are zeros and empty strings, `random_data` reproducible values (floats in [0, 1), integers below 100),
    `input_data_file` the bytes of a file in the model's folder `warmup`: those of one row, which is repeated, or of
    the whole batch. Source: Triton's model configuration, "Model Warmup".

    Raises: MODEL_CONFIG_INVALID, MODEL_FILE_MISSING.
    """
    for index, sample in enumerate(config.model_warmup):
        label = f"model_warmup '{shorten(sample.name) or index}'"
        rows = _rows(sample, config, label)
        batch = _batch(sample, rows, config, model_path / WARMUP_FOLDER, label)
        for _ in range(max(sample.count, 1)):
            yield batch


def _rows(sample: ModelWarmup, config: ModelConfig, label: str) -> int:
    rows = max(int(sample.batch_size), 1)
    if rows > max(config.max_batch_size, 1):
        raise _invalid(f"{label} has batch_size {rows}, above max_batch_size {config.max_batch_size}")
    if sample.count > MAX_WARMUP_COUNT:
        raise _invalid(f"{label} has count {sample.count}; the most is {MAX_WARMUP_COUNT}")
    return rows


def _batch(sample: ModelWarmup, rows: int, config: ModelConfig, folder: Path, label: str) -> dict[str, Array]:
    known = {tensor.name: tensor for tensor in config.input}
    if missing := sorted(name for name, tensor in known.items() if not tensor.optional and name not in sample.inputs):
        raise _invalid(f"{label} lacks the inputs {missing}")
    batch: dict[str, Array] = {}
    for name, given in sorted(sample.inputs.items()):
        what = f"input '{shorten(name)}' of {label}"
        if name not in known:
            raise _invalid(f"{what} is none of the model's: {sorted(known)}")
        datatype = _check_input(given, known[name], what)
        prefix = (rows,) if config.max_batch_size else ()
        batch[name] = _array(given, datatype, prefix, folder, what)
    return batch


def _check_input(given: Any, expected: ModelInput, what: str) -> Datatype:
    datatype = datatype_of_config(given.data_type, tensor=expected.name)
    dims = tuple(given.dims)
    fits = len(dims) == len(expected.dims) and all(
        size >= 0 and want in {-1, size} for size, want in zip(dims, expected.dims, strict=True)
    )
    if given.data_type != expected.data_type or not fits:
        wanted = f"{datatype_of_config(expected.data_type, tensor=expected.name)} {list(expected.dims)}"
        raise _invalid(f"{what} is {datatype} {list(dims)}; the model takes {wanted}")
    return datatype


def _array(given: Any, datatype: Datatype, batch: tuple[int, ...], folder: Path, what: str) -> Array:
    shape = (*batch, *given.dims)
    try:
        size = element_count(shape, tensor=what) * (datatype.itemsize or _STRING_BYTES)
    except InferenceError as error:
        raise _invalid(error.message) from error
    if size > MAX_WARMUP_BYTES:
        raise _invalid(f"{what} takes {size} bytes; the most is {MAX_WARMUP_BYTES}")
    match given.WhichOneof("input_data_type"):
        case "zero_data":
            return np.full(shape, b"" if datatype is Datatype.BYTES else 0, dtype=datatype.numpy)
        case "random_data":
            return _random(shape, datatype)
        case "input_data_file":
            return _from_file(existing_file(folder, given.input_data_file, field=what), datatype, shape, batch, what)
        case _:
            raise _invalid(f"{what} has none of zero_data, random_data and input_data_file")


def _random(shape: tuple[int, ...], datatype: Datatype) -> Array:
    generator = np.random.default_rng(0)
    if datatype is Datatype.BYTES:
        array = np.empty(math.prod(shape), dtype=object)
        array[:] = [str(number).encode() for number in generator.integers(_RANDOM_BELOW, size=array.size)]
        return array.reshape(shape)
    if datatype.numpy.kind in "biu":
        return generator.integers(2 if datatype is Datatype.BOOL else _RANDOM_BELOW, size=shape, dtype=datatype.numpy)
    return generator.random(shape, dtype=np.float32).astype(datatype.numpy)


def _from_file(path: Path, datatype: Datatype, shape: tuple[int, ...], batch: tuple[int, ...], what: str) -> Array:
    if path.stat().st_size > MAX_WARMUP_BYTES:
        raise _invalid(f"the file of {what} is longer than {MAX_WARMUP_BYTES} bytes")
    data = path.read_bytes()
    try:
        whole = Tensor(what, datatype, shape, data)
        check_size(whole)
    except InferenceError as error:
        row = Tensor(what, datatype, (1,) * len(batch) + shape[len(batch) :], data)
        try:
            check_size(row)
        except InferenceError:
            raise _invalid(f"the file of {what}: {error.message}") from error
        return np.repeat(to_array(row), batch[0], axis=0) if batch else to_array(row)
    return to_array(whole)


def _invalid(reason: str) -> InferenceError:
    return InferenceError(ErrorCode.MODEL_CONFIG_INVALID, reason)
