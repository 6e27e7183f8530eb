"""A real audio model (the basic-pitch wheel's) in three formats: equal answers, and equal to the raw runtimes'."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from trygon.models.tensors import Array

FILES = {"onnxruntime": "nmp.onnx", "tensorflow": "nmp", "litert": "nmp.tflite"}
ONNX_INPUT = "serving_default_input_2:0"
ONNX_OUTPUTS = {f"StatefulPartitionedCall:{number}": name for number, name in enumerate(("contour", "note", "onset"))}


@pytest.fixture
def audio() -> Array:
    return np.random.default_rng(3).uniform(-1, 1, (2, 43844, 1)).astype(np.float32)


@pytest.fixture
def answers(load: Callable[..., Any], basic_pitch: Path, audio: Array) -> dict[str, dict[str, Array]]:
    """The answers of each runtime, with the outputs' names of the SavedModel."""
    found = {}
    for name, file in FILES.items():
        model = load(name, basic_pitch, default_model_filename=file)
        assert model.signature.batches
        outputs = [output.name for output in model.signature.outputs]
        answer = model.run({model.signature.inputs[0].name: audio}, outputs)
        found[name] = {ONNX_OUTPUTS.get(output, output): array for output, array in answer.items()}
    return found


def test_the_three_formats_agree(answers: dict[str, dict[str, Array]]) -> None:
    for name in ("tensorflow", "litert"):
        assert set(answers[name]) == {"contour", "note", "onset"}
        for output, array in answers["onnxruntime"].items():
            np.testing.assert_allclose(answers[name][output], array, atol=1e-5)


def test_they_answer_what_the_raw_runtimes_answer(
    answers: dict[str, dict[str, Array]], basic_pitch: Path, audio: Array, tf: Any
) -> None:
    session = onnxruntime.InferenceSession(str(basic_pitch / "nmp.onnx"), providers=["CPUExecutionProvider"])
    raw = dict(zip(ONNX_OUTPUTS.values(), session.run(list(ONNX_OUTPUTS), {ONNX_INPUT: audio}), strict=True))
    assert_close(answers["onnxruntime"], raw)
    runner = Interpreter(str(basic_pitch / "nmp.tflite")).get_signature_runner("serving_default")
    assert_close(answers["litert"], runner(input_2=audio))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, ["serve"], str(basic_pitch / "nmp"))
        raw = dict(zip(ONNX_OUTPUTS.values(), session.run(list(ONNX_OUTPUTS), {ONNX_INPUT: audio}), strict=True))
    assert_close(answers["tensorflow"], raw)


def assert_close(answer: dict[str, Array], raw: dict[str, Array]) -> None:
    for output, array in raw.items():
        np.testing.assert_allclose(answer[output], array, atol=1e-5)
