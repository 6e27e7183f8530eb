"""Models to load: the committed digits, those of the basic-pitch wheel, and small ones built on the spot."""

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trygon.models.backends import backend
from trygon.models.backends.base import LoadedModel, Placement
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """Load a version's folder with a backend; closed at the end of the test."""
    loaded: list[LoadedModel] = []

    def load(name: str, path: Path, placement: Placement | None = None, **fields: Any) -> LoadedModel:
        parameters = fields.pop("parameters", {})
        config = ModelConfig(name="test", **fields)
        for key, value in parameters.items():
            config.parameters[key].string_value = value
        loaded.append(backend(name).load(path, config, placement or Placement()))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


@pytest.fixture(scope="session")
def digits() -> Callable[[str], Path]:
    """Return the version folder of the committed digits model for a backend."""
    folders = {"onnxruntime": "digits_onnx", "tensorflow": "digits_tensorflow", "litert": "digits_litert"}
    return lambda name: ROOT / "examples" / "models" / folders[name] / "1"


@pytest.fixture(scope="session")
def digit_image() -> Array:
    """Return the example request's image, float32 [1, 64]; it shows a 9."""
    tensor = json.loads((ROOT / "examples" / "requests" / "digit.json").read_text())["inputs"][0]
    return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])


@pytest.fixture(scope="session")
def basic_pitch() -> Path:
    """Return the folder with the wheel's three formats of one model; its code is not imported."""
    files = importlib.metadata.files("basic-pitch") or []
    return next(Path(str(file.locate())).parent for file in files if file.name == "nmp.onnx")


@pytest.fixture
def onnx_graph(tmp_path: Path) -> Callable[..., Path]:
    """Write an ONNX graph of (op, inputs, outputs) nodes; tensors are (name, element type name, shape)."""

    def write(
        nodes: list[tuple[str, list[str], list[str]]],
        inputs: list[tuple[str, str, Any]],
        outputs: list[tuple[str, str, Any]],
        constants: tuple[Any, ...] = (),
    ) -> Path:
        def describe(name: str, kind: str, shape: Any) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape)

        graph = helper.make_graph(
            [helper.make_node(op, given, answered) for op, given, answered in nodes],
            "test",
            [describe(*tensor) for tensor in inputs],
            [describe(*tensor) for tensor in outputs],
            list(constants),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path

    return write


@pytest.fixture(scope="session")
def tf() -> Any:
    """Return TensorFlow, which takes 7 s to import: once, and only when a test asks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf  # noqa: PLC0415 - slow

    return tf


@pytest.fixture
def litert_graph(tf: Any, tmp_path: Path) -> Callable[..., Path]:
    """Convert a function of tensors to model.tflite; the specs are (name, dtype, shape)."""

    def write(function: Callable[..., Any], *specs: tuple[str, Any, Any], select_tf: bool = False) -> Path:
        module = tf.Module()
        module.function = tf.function(
            function,
            input_signature=[tf.TensorSpec(shape, dtype, name=name) for name, dtype, shape in specs],
            autograph=False,
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.function.get_concrete_function()], module)
        if select_tf:
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        (tmp_path / "model.tflite").write_bytes(converter.convert())
        return tmp_path

    return write
