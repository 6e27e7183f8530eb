"""A real audio model (the basic-pitch wheel's) served in three formats: equal answers, and the raw runtimes' own."""

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

FILES = {"pitch_onnx": "model.onnx", "pitch_tensorflow": "model.savedmodel", "pitch_litert": "model.tflite"}
SOURCES = {"pitch_onnx": "nmp.onnx", "pitch_tensorflow": "nmp", "pitch_litert": "nmp.tflite"}
ONNX_INPUT = "serving_default_input_2:0"
ONNX_OUTPUTS = {f"StatefulPartitionedCall:{number}": name for number, name in enumerate(("contour", "note", "onset"))}


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The folder with the wheel's three formats; its code is not imported."""
    files = importlib.metadata.files("basic-pitch") or []
    return next(Path(str(file.locate())).parent for file in files if file.name == "nmp.onnx")


@pytest.fixture(scope="module")
def served(server: Any, http_client: Any, wheel: Path) -> Iterator[None]:
    for model, file in FILES.items():
        target = server.repository / model / "1" / file
        target.parent.mkdir(parents=True)
        source = wheel / SOURCES[model]
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        http_client.load_model(model)
    yield
    for model in FILES:
        http_client.unload_model(model)


@pytest.fixture(scope="module")
def audio() -> Any:
    return np.random.default_rng(3).uniform(-1, 1, (2, 43844, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def answers(http_client: Any, grpc_client: Any, served: None, audio: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The answer of each format over each protocol, with the outputs' names of the SavedModel."""
    del served
    found = {}
    for protocol, client, triton in (("http", http_client, triton_http), ("grpc", grpc_client, triton_grpc)):
        for model in FILES:
            metadata = http_client.get_model_metadata(model)
            tensor = triton.InferInput(metadata["inputs"][0]["name"], list(audio.shape), "FP32")
            tensor.set_data_from_numpy(audio)
            result = client.infer(model, [tensor])
            names = [output["name"] for output in metadata["outputs"]]
            found[model, protocol] = {ONNX_OUTPUTS.get(name, name): result.as_numpy(name) for name in names}
    return found


@pytest.fixture(scope="module")
def raw(wheel: Path, audio: Any) -> dict[str, dict[str, Any]]:
    """What the runtimes answer without a server between."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf  # noqa: PLC0415 - slow

    session = onnxruntime.InferenceSession(str(wheel / "nmp.onnx"), providers=["CPUExecutionProvider"])
    onnx = dict(zip(ONNX_OUTPUTS.values(), session.run(list(ONNX_OUTPUTS), {ONNX_INPUT: audio}), strict=True))
    litert = Interpreter(str(wheel / "nmp.tflite")).get_signature_runner("serving_default")(input_2=audio)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, ["serve"], str(wheel / "nmp"))
        fetched = session.run(list(ONNX_OUTPUTS), {ONNX_INPUT: audio})
    tensorflow = dict(zip(ONNX_OUTPUTS.values(), fetched, strict=True))
    return {"pitch_onnx": onnx, "pitch_tensorflow": tensorflow, "pitch_litert": litert}


def assert_close(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert answer.keys() == expected.keys() == {"contour", "note", "onset"}
    for name, array in expected.items():
        np.testing.assert_allclose(answer[name], array, atol=1e-5)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_three_formats_agree(answers: dict[tuple[str, str], dict[str, Any]], protocol: str) -> None:
    for model in FILES:
        assert_close(answers[model, protocol], answers["pitch_onnx", "http"])


@pytest.mark.parametrize("model", FILES)
def test_each_answers_what_its_raw_runtime_answers(
    answers: dict[tuple[str, str], dict[str, Any]], raw: dict[str, dict[str, Any]], model: str
) -> None:
    assert_close(answers[model, "http"], raw[model])
    assert_close(answers[model, "grpc"], raw[model])


@pytest.mark.parametrize("model", FILES)
def test_a_row_answers_the_same_alone(grpc_client: Any, http_client: Any, answers: Any, audio: Any, model: str) -> None:
    metadata = http_client.get_model_metadata(model)
    tensor = triton_grpc.InferInput(metadata["inputs"][0]["name"], [1, 43844, 1], "FP32")
    tensor.set_data_from_numpy(audio[1:])
    result = grpc_client.infer(model, [tensor])
    for output in metadata["outputs"]:
        whole = answers[model, "grpc"][ONNX_OUTPUTS.get(output["name"], output["name"])]
        np.testing.assert_allclose(result.as_numpy(output["name"])[0], whole[1], atol=1e-5)
