"""A configuration made complete from its model file and checked against it, and the description callers get of it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Signature
from trygon.models.config import backend_of, data_type_of, datatype_of_config, model_filename
from trygon.models.constraints import check_config
from trygon.models.names import existing_file
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import TensorSpec
from trygon.models.versions import ModelDescription

MAX_LABELS_BYTES: Final = 16 * 1024 * 1024
"""Largest label file that is read."""


def complete(config: ModelConfig, signature: Signature, *, default_max_batch_size: int) -> ModelConfig:
    """Return a copy of `config` with all that the model file tells filled in, as Triton's auto-complete does.

    Inputs that the configuration leaves out are added. Outputs are added if it names none; if it names some, only
    those are served. Without inputs and outputs, a file that batches gets `default_max_batch_size` (and dynamic
    batching if that is above 1); with them, their ranks tell whether they leave a batch dimension out.

    Raises: MODEL_CONFIG_MISMATCH if names, datatypes, shapes or batching contradict the file, and what `check_config`
    raises.
    """
    check_config(config)
    completed = ModelConfig()
    completed.CopyFrom(config)
    _complete_backend(completed, signature)
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    _complete_names(completed, inputs, outputs)
    pairs = [
        *(("input", tensor, inputs[tensor.name]) for tensor in completed.input),
        *(("output", tensor, outputs[tensor.name]) for tensor in completed.output),
    ]
    _complete_batching(completed, signature, pairs, default_max_batch_size)
    for kind, tensor, spec in pairs:
        _complete_tensor(tensor, spec, kind, completed)
    check_config(completed)
    return completed


def describe(config: ModelConfig, signature: Signature, labels: dict[str, tuple[str, ...]]) -> ModelDescription:
    """Return what a loaded version looks like from outside; `config` is complete (see `complete`)."""
    return ModelDescription(
        platform=config.platform or signature.platform,
        config=config.SerializeToString(deterministic=True),
        max_batch_size=config.max_batch_size,
        inputs=tuple(_describe(tensor, config, optional=tensor.optional) for tensor in config.input),
        outputs=tuple(_describe(tensor, config) for tensor in config.output),
        labels=labels,
        shares=config.max_batch_size > 1 and config.HasField("dynamic_batching"),
    )


def labels(config: ModelConfig, model_path: Path) -> dict[str, tuple[str, ...]]:
    """Return the class labels of each output that has a `label_filename`: a text file, one label per line.

    Raises: MODEL_CONFIG_INVALID if the file lies outside the model's folder, is too large or is no UTF-8 text,
    MODEL_FILE_MISSING.
    """
    return {
        output.name: _read_labels(existing_file(model_path, output.label_filename, field="label_filename"))
        for output in config.output
        if output.label_filename
    }


def _read_labels(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        content = file.read(MAX_LABELS_BYTES + 1)
    if len(content) > MAX_LABELS_BYTES:
        raise InferenceError(
            ErrorCode.MODEL_CONFIG_INVALID, f"label file '{path.name}' is longer than {MAX_LABELS_BYTES} bytes"
        )
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"label file '{path.name}' is no UTF-8 text") from error
    # An empty line within the file is a label: the ones behind it would otherwise move to the wrong class.
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _complete_backend(config: ModelConfig, signature: Signature) -> None:
    ours = ModelConfig(name=config.name, platform=signature.platform)
    backend = backend_of(ours)
    if (config.backend or config.platform) and backend_of(config) != backend:
        asked = config.backend or config.platform
        raise _mismatch(config, f"the configuration asks for '{asked}', the model file is for '{backend}'")
    config.backend = backend
    config.platform = signature.platform
    config.default_model_filename = model_filename(config)


def _complete_names(config: ModelConfig, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]) -> None:
    for kind, tensors, specs in (("input", config.input, inputs), ("output", config.output, outputs)):
        for tensor in tensors:
            if tensor.name not in specs:
                raise _mismatch(
                    config,
                    f"the configuration has {kind} '{tensor.name}', the model file has {kind}s {sorted(specs)}",
                    tensor=tensor.name,
                )
    named = {tensor.name for tensor in config.input}
    for name, spec in inputs.items():
        if name not in named:
            config.input.add(name=name, optional=spec.optional)
    if not config.output:
        for name in outputs:
            config.output.add(name=name)


def _complete_batching(
    config: ModelConfig, signature: Signature, pairs: Sequence[tuple[str, Any, TensorSpec]], default: int
) -> None:
    """Decide `max_batch_size`. Source: Triton's optimization guide, "Auto-Generated Model Configuration"."""
    if config.max_batch_size > 0:
        for kind, tensor, spec in pairs:
            if not _may_batch(spec, signature, config.max_batch_size):
                raise _mismatch(
                    config,
                    f"max_batch_size is {config.max_batch_size}, but {kind} '{tensor.name}' of the model file has"
                    f" shape {list(spec.shape)}, whose first dimension is no batch of any size; set max_batch_size 0",
                    tensor=tensor.name,
                )
        return
    given = [(tensor, spec) for _, tensor, spec in pairs if tensor.dims]
    left_out = [tensor.name for tensor, spec in given if len(_inner(tensor)) == len(spec.shape) - 1]
    file_batches = all(_may_batch(spec, signature, 1) for _, _, spec in pairs)
    if given and not left_out:
        return
    if left_out and (len(left_out) < len(given) or not file_batches):
        raise _mismatch(
            config,
            f"max_batch_size is 0, but the dims of {sorted(left_out)} have one dimension less than the model file's;"
            " give all dimensions, or set max_batch_size and leave the first one out everywhere",
        )
    if left_out or signature.batches:
        config.max_batch_size = max(default, 1) if left_out else default
        if config.max_batch_size > 1 and config.WhichOneof("scheduling_choice") is None:
            config.dynamic_batching.SetInParent()


def _may_batch(spec: TensorSpec, signature: Signature, max_batch_size: int) -> bool:
    if not spec.shape:
        return False
    return signature.batches or spec.shape[0] == -1 or spec.shape[0] == max_batch_size == 1


def _complete_tensor(tensor: Any, spec: TensorSpec, kind: str, config: ModelConfig) -> None:
    """Fill in the datatype and dims of one input or output, or compare them with the model file's."""
    if not tensor.data_type:
        tensor.data_type = data_type_of(spec.datatype)
    datatype = datatype_of_config(tensor.data_type, tensor=tensor.name)
    if datatype is not spec.datatype:
        raise _mismatch(
            config,
            f"{kind} '{tensor.name}' is {datatype} in the configuration and {spec.datatype} in the model file",
            tensor=tensor.name,
        )
    shape = spec.shape[1:] if config.max_batch_size else spec.shape
    if not tensor.dims:
        # Triton forbids empty dims: a scalar (per row) is shown as one element and reshaped for the model.
        tensor.dims.extend(shape or (1,))
        if not shape:
            tensor.reshape.SetInParent()
    if not _compatible(_inner(tensor), shape):
        raise _mismatch(
            config,
            f"{kind} '{tensor.name}' has {'reshape' if tensor.HasField('reshape') else 'dims'}"
            f" {list(_inner(tensor))} in the configuration and {list(shape)} in the model file"
            f"{' (without the batch dimension)' if config.max_batch_size else ''}",
            tensor=tensor.name,
        )


def _inner(tensor: Any) -> Sequence[int]:
    """Return the dims that the model file is to see."""
    return tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)


def _compatible(dims: Sequence[int], shape: Iterable[int]) -> bool:
    """Whether dims agree; -1 on either side agrees with any size."""
    sizes = tuple(shape)
    return len(dims) == len(sizes) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, sizes, strict=True))


def _describe(tensor: Any, config: ModelConfig, *, optional: bool = False) -> TensorSpec:
    shape = (-1, *tensor.dims) if config.max_batch_size else tuple(tensor.dims)
    return TensorSpec(tensor.name, datatype_of_config(tensor.data_type, tensor=tensor.name), shape, optional)


def _mismatch(config: ModelConfig, reason: str, **context: Any) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_CONFIG_MISMATCH, f"model '{config.name}': {reason}", model=config.name, **context
    )
