"""The examples: training them anew gives as good a model, and the committed ones are one network in three formats."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from google.protobuf import text_format

from trygon.models.backends import backend
from trygon.models.backends.base import Placement
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SUFFIXES = ("onnx", "tensorflow", "litert")
EXPECTED_ACCURACY = 0.96


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", EXAMPLES / "train_digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(folder: Path, suffix: str, images: Array) -> Array:
    model_folder = folder / "models" / f"digits_{suffix}"
    config = text_format.Parse((model_folder / "config.pbtxt").read_text(), ModelConfig())
    model = backend(config.backend).load(model_folder / "1", config, Placement())
    try:
        return model.run({"image": images}, ("probabilities",))["probabilities"]
    finally:
        model.close()


@pytest.fixture(scope="module")
def accuracy_of(script: ModuleType) -> Callable[[Path, str], float]:
    _, test = script.load_data()
    return lambda folder, suffix: float(np.mean(answer(folder, suffix, test.images).argmax(axis=1) == test.labels))


def test_training_anew_is_as_good_as_what_is_committed(
    script: ModuleType, accuracy_of: Callable[[Path, str], float], tmp_path: Path
) -> None:
    told = script.write_examples(tmp_path)
    assert told > EXPECTED_ACCURACY
    for suffix in SUFFIXES:
        assert accuracy_of(tmp_path, suffix) == pytest.approx(told)
        assert accuracy_of(EXAMPLES, suffix) == pytest.approx(told, abs=0.01)
    for file in ("config.pbtxt", "labels.txt"):
        for suffix in SUFFIXES:
            written = tmp_path / "models" / f"digits_{suffix}" / file
            assert written.read_text() == (EXAMPLES / "models" / f"digits_{suffix}" / file).read_text()
    request = Path("requests") / "digit.json"
    assert (tmp_path / request).read_text() == (EXAMPLES / request).read_text()


def test_the_committed_models_agree(script: ModuleType) -> None:
    _, test = script.load_data()
    reference = answer(EXAMPLES, "onnx", test.images)
    np.testing.assert_allclose(reference.sum(axis=1), 1, atol=1e-5)
    for suffix in ("tensorflow", "litert"):
        np.testing.assert_allclose(answer(EXAMPLES, suffix, test.images), reference, atol=1e-5)


def test_the_example_request_shows_a_nine_of_the_test_set(script: ModuleType) -> None:
    _, test = script.load_data()
    (tensor,) = json.loads((EXAMPLES / "requests" / "digit.json").read_text())["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("image", [1, 64], "FP32")
    image = np.array(tensor["data"], dtype=np.float32).reshape(1, 64)
    shown = np.flatnonzero((test.images == image).all(axis=1))
    assert set(test.labels[shown]) == {9}
    assert answer(EXAMPLES, "onnx", image).argmax() == 9
    assert "a 9" in (EXAMPLES / "README.md").read_text()
