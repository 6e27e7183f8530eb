"""The `reshape` of a model's inputs and outputs: callers see `dims`, the model file sees `reshape`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel, Signature
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array


def with_reshape(model: LoadedModel, config: ModelConfig) -> LoadedModel:
    """Return a model that takes and gives the shapes that callers see; `model` itself if nothing is reshaped.

    `config` is complete (see completion.complete).
    """
    inputs, outputs = _reshapes(config.input), _reshapes(config.output)
    if not inputs and not outputs:
        return model
    return _ReshapedModel(model, inputs, outputs, batches=config.max_batch_size > 0)


def reshape(array: Array, given: Sequence[int], wanted: Sequence[int], *, batches: bool) -> Array:
    """Return `array`, whose dims are `given`, with dims `wanted`; the batch dimension of a model that batches stays.

    The n-th -1 in `wanted` takes the size that the n-th -1 in `given` has. Never copies a contiguous array.

    Raises: ValueError if the array does not have the shape `given`.
    """
    batch, inner = (array.shape[:1], array.shape[1:]) if batches else ((), array.shape)
    sizes = iter([size for size, dim in zip(inner, given, strict=True) if dim == -1])
    return array.reshape((*batch, *(next(sizes) if dim == -1 else dim for dim in wanted)))


class _ReshapedModel:
    """A loaded model behind the reshapes of its configuration: (dims, reshape) by tensor name."""

    def __init__(
        self,
        model: LoadedModel,
        inputs: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
        outputs: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
        *,
        batches: bool,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._outputs = outputs
        self._batches = batches

    @property
    def signature(self) -> Signature:
        return self._model.signature

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        inside = dict(inputs)
        for name in inputs.keys() & self._inputs.keys():
            dims, shape = self._inputs[name]
            inside[name] = reshape(inputs[name], dims, shape, batches=self._batches)
        results = self._model.run(inside, outputs)
        for name in results.keys() & self._outputs.keys():
            dims, shape = self._outputs[name]
            try:
                results[name] = reshape(results[name], shape, dims, batches=self._batches)
            except ValueError as error:
                raise InferenceError(
                    ErrorCode.RUNNER_OUTPUT_INVALID,
                    f"output '{name}' has shape {list(results[name].shape)}, which its reshape does not describe",
                    output=name,
                ) from error
        return results

    def close(self) -> None:
        self._model.close()


def _reshapes(tensors: Iterable[Any]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {
        tensor.name: (tuple(tensor.dims), tuple(tensor.reshape.shape))
        for tensor in tensors
        if tensor.HasField("reshape")
    }
