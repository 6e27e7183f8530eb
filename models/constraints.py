"""What a model configuration must not say: settings that make no sense, and settings that this server lacks."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import backend_of
from trygon.models.names import check_name, relative_path, shorten
from trygon.models.proto.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
)
from trygon.models.tensors import MAX_DIMENSION

MAX_INSTANCES: Final = 1024
"""Most instances of one model per replica: each takes threads and, with some runtimes, the model's memory again."""
_DATA_TYPES: Final = frozenset(DataType.values())


def check_config(config: ModelConfig, *, folder: str = "") -> None:
    """Check what can be checked without the model file; parts that are left out are fine.

    `folder` is the name of the model's folder, which the configuration must not contradict.

    Raises: MODEL_NAME_INVALID, MODEL_CONFIG_INVALID for nonsense, MODEL_CONFIG_UNSUPPORTED and MODEL_BACKEND_UNKNOWN
    for what this server lacks.
    """
    name = folder or config.name
    if config.name:
        check_name(config.name)
        if config.name != name:
            raise _invalid(name, f"name is '{config.name}', but the model's folder is '{folder}'")
    _check_supported(config, name)
    if config.max_batch_size < 0:
        raise _invalid(name, f"max_batch_size is {config.max_batch_size}; it must be 0 or more")
    if config.default_model_filename:
        _check_file(config.default_model_filename, name, "default_model_filename", depth=1)
    _check_tensors(config.input, name, "input")
    _check_tensors(config.output, name, "output")
    _check_formats(config.input, name)
    for output in config.output:
        if output.label_filename:
            _check_file(output.label_filename, name, f"label_filename of output '{output.name}'")
    for filename in config.model_operations.op_library_filename:
        _check_file(filename, name, "model_operations.op_library_filename")
    if any(version <= 0 for version in config.version_policy.specific.versions):
        raise _invalid(name, "version_policy.specific names a version below 1")
    _check_instance_groups(config.instance_group, name)
    if config.HasField("dynamic_batching"):
        _check_dynamic_batching(config.dynamic_batching, config.max_batch_size, name)


def _check_supported(config: ModelConfig, name: str) -> None:
    tensors: list[Any] = [*config.input, *config.output]
    absent = {
        "ensemble_scheduling": config.HasField("ensemble_scheduling") or config.platform == "ensemble",
        "sequence_batching": config.HasField("sequence_batching"),
        "model_transaction_policy.decoupled": config.model_transaction_policy.decoupled,
        "batch_input": bool(config.batch_input),
        "batch_output": bool(config.batch_output),
        "model_repository_agents": bool(config.model_repository_agents.agents),
        "is_shape_tensor": any(tensor.is_shape_tensor for tensor in tensors),
        "is_non_linear_format_io": any(tensor.is_non_linear_format_io for tensor in tensors),
        "allow_ragged_batch": any(tensor.allow_ragged_batch for tensor in config.input),
        "instance_group.secondary_devices": any(group.secondary_devices for group in config.instance_group),
        "instance_group.passive": any(group.passive for group in config.instance_group),
    }
    for setting, present in absent.items():
        if present:
            raise _unsupported(name, f"this server does not have {setting}", setting)
    if config.backend or config.platform:
        backend_of(config)


def _check_tensors(tensors: Iterable[Any], model: str, kind: str) -> None:
    """Check inputs or outputs; without `data_type` or `dims` they are completed from the model file later."""
    seen: set[str] = set()
    for tensor in tensors:
        if not tensor.name:
            raise _invalid(model, f"an {kind} has no name")
        if tensor.name in seen:
            raise _invalid(model, f"{kind} '{tensor.name}' appears twice")
        seen.add(tensor.name)
        label = f"{kind} '{shorten(tensor.name)}'"
        if tensor.data_type not in _DATA_TYPES:
            raise _invalid(model, f"{label} has data_type {tensor.data_type}, which is none")
        _check_dims(tensor.dims, model, f"dims of {label}")
        if tensor.HasField("reshape"):
            _check_dims(tensor.reshape.shape, model, f"reshape of {label}")
            _check_reshape(tensor.dims, tensor.reshape.shape, model, label)


def _check_dims(dims: Sequence[int], model: str, what: str) -> None:
    if any(dim < 1 and dim != -1 for dim in dims) or math.prod(map(abs, dims[:64])) > MAX_DIMENSION or len(dims) > 64:
        raise _invalid(
            model, f"{what} are {list(dims[:64])}; give at most 64 integers above 0, or -1 for a dimension of any size"
        )


def _check_reshape(dims: Sequence[int], shape: Sequence[int], model: str, label: str) -> None:
    """Check that `dims` and `shape` hold equally many elements, whatever size their -1 take.

    The n-th -1 of the one is the n-th of the other. Source: Triton's model configuration, "Reshape".
    """
    if not dims:
        raise _invalid(model, f"{label} has a reshape, but no dims")
    if _segments(dims) != _segments(shape):
        raise _invalid(model, f"{label} has dims {list(dims)} and reshape {list(shape)}, which differ in size")


def _segments(dims: Sequence[int]) -> list[int]:
    """Return the element counts between the dimensions of any size."""
    counts = [1]
    for dim in dims:
        if dim == -1:
            counts.append(1)
        else:
            counts[-1] *= dim
    return counts


def _check_formats(inputs: Iterable[ModelInput], model: str) -> None:
    for tensor in inputs:
        if tensor.format != ModelInput.FORMAT_NONE and tensor.dims and len(tensor.dims) != 3:
            raise _invalid(model, f"input '{tensor.name}' has an image format, so its dims must be 3")


def _check_instance_groups(groups: Sequence[ModelInstanceGroup], model: str) -> None:
    for group in groups:
        if group.count < 0:
            raise _invalid(model, f"instance_group.count is {group.count}; it must be 0 or more")
        if group.gpus and group.kind == ModelInstanceGroup.KIND_CPU:
            raise _invalid(model, "instance_group.gpus and kind KIND_CPU exclude each other")
        if any(gpu < 0 for gpu in group.gpus):
            raise _invalid(model, "instance_group.gpus names a device below 0")
    if sum(max(group.count, 1) for group in groups) > MAX_INSTANCES:
        raise _invalid(model, f"instance_group asks for more than {MAX_INSTANCES} instances")
    if len({group.kind == ModelInstanceGroup.KIND_GPU for group in groups}) > 1:
        raise _unsupported(model, "one model cannot run on CPU and GPU at once here", "instance_group.kind")


def _check_dynamic_batching(batching: ModelDynamicBatching, max_batch_size: int, model: str) -> None:
    for size in batching.preferred_batch_size:
        if size < 1:
            raise _invalid(model, f"preferred_batch_size {size} is below 1")
        if 0 < max_batch_size < size:
            raise _invalid(model, f"preferred_batch_size {size} is above max_batch_size {max_batch_size}")
    levels = batching.priority_levels
    default = batching.default_priority_level
    if levels and not 1 <= default <= levels:
        raise _invalid(model, f"default_priority_level is {default}; it must be between 1 and priority_levels {levels}")
    if default and not levels:
        raise _invalid(model, "default_priority_level is set, but priority_levels is not")
    if any(not 1 <= level <= levels for level in batching.priority_queue_policy):
        raise _invalid(model, f"priority_queue_policy has a level that is not between 1 and priority_levels {levels}")


def _check_file(filename: str, model: str, field: str, depth: int = 16) -> None:
    try:
        path = relative_path(filename)
    except InferenceError as error:
        raise _invalid(model, f"{field}: {error.message}") from error
    if len(path.parts) > depth:
        raise _invalid(model, f"{field} '{filename}' is no plain file name")


def _invalid(model: str, reason: str) -> InferenceError:
    return InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"model '{shorten(model)}': {reason}", model=shorten(model))


def _unsupported(model: str, reason: str, setting: str) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_CONFIG_UNSUPPORTED,
        f"model '{shorten(model)}': {reason}",
        model=shorten(model),
        setting=setting,
    )
