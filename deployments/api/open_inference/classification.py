"""Triton's classification extension: an output as its top classes, each a string "score:index" or with its label."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from trygon.deployments.api.open_inference.blocking import run_sized
from trygon.deployments.data_plane import DataPlane
from trygon.errors import ErrorCode, InferenceError
from trygon.models.tensors import Array, Datatype, InferRequest, InferResponse, Tensor, join_strings, to_array
from trygon.models.versions import ModelDescription

_UNORDERED: Final = {Datatype.BYTES, Datatype.BOOL}
_FLOATS: Final = {Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64}


async def infer(data_plane: DataPlane, request: InferRequest) -> InferResponse:
    """Infer, and turn the outputs that were asked for as classes into them.

    Raises: what `DataPlane.infer` raises, and REQUEST_PARAMETER_INVALID for an output that has no classes.
    """
    response = await data_plane.infer(request)
    wanted = {output.name: output.classes for output in request.outputs if output.classes}
    if not wanted:
        return response
    description = (await data_plane.model(response.model, response.version)).description
    size = sum(len(tensor.data) for tensor in response.outputs)
    return await run_sized(size, _classified, response, wanted, description)


def classify(tensor: Tensor, classes: int, *, labels: Sequence[str], batched: bool) -> Tensor:
    """Return the top `classes` of a tensor as BYTES, shape [classes] or [rows, classes], highest score first.

    A batched tensor is classified row by row; each row, or else the whole tensor, is one vector of scores.
    Raises: REQUEST_PARAMETER_INVALID for strings and booleans.
    """
    if tensor.datatype in _UNORDERED:
        raise InferenceError(
            ErrorCode.REQUEST_PARAMETER_INVALID,
            f"output '{tensor.name}' has datatype {tensor.datatype}, which has no classes",
            parameter="classification",
            tensor=tensor.name,
        )
    rows = tensor.rows if batched else 1
    scores = to_array(tensor).reshape(rows, -1) if rows else np.empty((0, 0))
    count = min(classes, scores.shape[1])
    # A stable sort of the negated ranks keeps equal scores in class order; integers would overflow when negated.
    order = np.argsort(scores.astype(np.float64) * -1, axis=1, kind="stable")[:, :count]
    found = [
        _class(row[index], int(index), labels, tensor.datatype)
        for row, indices in zip(scores, order, strict=True)
        for index in indices
    ]
    shape = (rows, count) if batched else (count,)
    return Tensor(tensor.name, Datatype.BYTES, shape, join_strings(found, tensor=tensor.name))


def _classified(response: InferResponse, wanted: dict[str, int], description: ModelDescription) -> InferResponse:
    batched = description.max_batch_size > 0
    outputs = (
        classify(tensor, wanted[tensor.name], labels=description.labels.get(tensor.name, ()), batched=batched)
        if tensor.name in wanted
        else tensor
        for tensor in response.outputs
    )
    return response._replace(outputs=tuple(outputs))


def _class(score: Array, index: int, labels: Sequence[str], datatype: Datatype) -> str:
    text = f"{float(score):f}" if datatype in _FLOATS else str(int(score))
    return f"{text}:{index}:{labels[index]}" if index < len(labels) else f"{text}:{index}"
