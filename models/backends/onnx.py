"""ONNX models on ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel, Placement, Signature
from trygon.models.backends.devices import check_device, device_missing
from trygon.models.backends.failures import load_failure, run_failure
from trygon.models.backends.files import model_file
from trygon.models.backends.memory import release_memory
from trygon.models.backends.onnx_operators import register_operators
from trygon.models.backends.onnx_options import session_options
from trygon.models.backends.onnx_values import decode_strings, encode_strings, from_bfloat16, to_bfloat16
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array, Datatype, TensorSpec

PLATFORM: Final = "onnxruntime_onnx"

_DATATYPES: Final = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(string)": Datatype.BYTES,
}
_REJECTIONS: Final = (InvalidArgument, ValueError, TypeError, RuntimeError)
"""What ONNX Runtime raises for input that it refuses; its own failures are none of these (RuntimeError is pybind's)."""

# The wheel for GPUs warns on machines that have none; errors still reach the log.
onnxruntime.set_default_logger_severity(3)


class OnnxBackend:
    """ONNX Runtime on CPU or CUDA."""

    def load(self, path: Path, config: ModelConfig, placement: Placement) -> LoadedModel:
        """Load `model.onnx` with the libraries of its custom operators; see `Backend.load`."""
        check_device(placement, ("cpu", "cuda"), runtime="ONNX Runtime")
        file = model_file(path, config, "onnxruntime")
        options = session_options(config, placement)
        register_operators(options, config, path.parent)
        providers: list[Any] = ["CPUExecutionProvider"]
        if placement.device == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": placement.device_index}))
        try:
            # Without `enable_fallback=0` a failure on the GPU is printed and the model silently runs on the CPU.
            session = onnxruntime.InferenceSession(str(file), options, providers=providers, enable_fallback=0)
        except Exception as error:
            raise load_failure(error, file, placement.device) from error
        if placement.device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise device_missing(placement, "ONNX Runtime found no usable CUDA driver or library")
        model = OnnxModel(session, file.name)
        release_memory()
        return model


class OnnxModel:
    """A session; ONNX Runtime runs it from several threads at once."""

    def __init__(self, session: Any, file_name: str) -> None:
        inputs = tuple(_spec(argument, file_name) for argument in session.get_inputs())
        outputs = tuple(_spec(argument, file_name) for argument in session.get_outputs())
        batches = bool(inputs) and all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
        self._session = session
        self._signature = Signature(PLATFORM, inputs, outputs, batches)
        self._inputs = {spec.name: spec.datatype for spec in inputs}
        self._outputs = {spec.name: spec.datatype for spec in outputs}
        self._convert = not {Datatype.BYTES, Datatype.BF16}.isdisjoint(self._inputs.values())
        if Datatype.BYTES in self._inputs.values() and Datatype.BF16 in self._outputs.values():
            raise _unsupported(
                file_name, "takes strings and gives BF16, which ONNX Runtime cannot do at once in Python"
            )

    @property
    def signature(self) -> Signature:
        """The graph's inputs and outputs. Shape () may also be an unknown rank: ONNX Runtime does not tell."""
        return self._signature

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run one batch; see `LoadedModel.run`.

        Raises: also TENSOR_DATA_INVALID for BYTES that are not UTF-8: strings in ONNX are text.
        """
        names = list(dict.fromkeys(outputs))
        datatypes = [self._outputs[name] for name in names]
        if not names:
            return {}
        feeds = {name: self._feed(name, array) for name, array in inputs.items()} if self._convert else inputs
        try:
            if Datatype.BF16 in datatypes:
                values = self._run_with_values(names, feeds)
            else:
                values = self._session.run(names, feeds)
            return {
                name: encode_strings(value) if datatype is Datatype.BYTES else value
                for name, datatype, value in zip(names, datatypes, values, strict=True)
            }
        except UnicodeDecodeError as error:
            raise run_failure(error, rejected=False) from error
        except Exception as error:
            raise run_failure(error, rejected=isinstance(error, _REJECTIONS)) from error

    def close(self) -> None:
        """Free the session's weights and arenas."""
        self._session = None
        release_memory()

    def _feed(self, name: str, array: Array) -> Any:
        datatype = self._inputs[name]
        if datatype is Datatype.BYTES:
            return decode_strings(array, tensor=name)
        return to_bfloat16(array, tensor=name) if datatype is Datatype.BF16 else array

    def _run_with_values(self, names: list[str], feeds: Mapping[str, Any]) -> list[Array]:
        """Run a graph whose outputs numpy has no type for."""
        given = {
            name: value if isinstance(value, onnxruntime.OrtValue) else onnxruntime.OrtValue.ortvalue_from_numpy(value)
            for name, value in feeds.items()
        }
        values = self._session.run_with_ort_values(names, given)
        return [
            from_bfloat16(value) if self._outputs[name] is Datatype.BF16 else value.numpy()
            for name, value in zip(names, values, strict=True)
        ]


def _spec(argument: Any, file_name: str) -> TensorSpec:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        raise _unsupported(file_name, f"has a tensor '{argument.name}' of type {argument.type}, which KServe lacks")
    # Symbolic dimensions are names; None and 0 stand for unknown ones in files of older exporters.
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in argument.shape)
    return TensorSpec(argument.name, datatype, shape)


def _unsupported(file_name: str, fault: str) -> InferenceError:
    return InferenceError(ErrorCode.MODEL_FILE_INVALID, f"'{file_name}' {fault}", file=file_name)
