"""What every runtime must do, shown with the same digits network in its format."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends import backend
from trygon.models.backends.base import Placement
from trygon.models.config import MODEL_FILENAMES
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array, Datatype, TensorSpec

pytestmark = pytest.mark.parametrize("name", ["onnxruntime", "tensorflow", "litert"])

Load = Callable[..., Any]
Digits = Callable[[str], Path]
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorflow": "tensorflow_savedmodel", "litert": "litert_tflite"}
OUTPUTS = ("probabilities",)


def images(count: int) -> Array:
    return (load_digits().data[:count] / 16).astype(np.float32)


def refused(error: pytest.ExceptionInfo[InferenceError], code: ErrorCode) -> str:
    assert error.value.code is code
    assert "\n" not in error.value.message
    return error.value.message


def test_it_tells_the_tensors_of_the_file(name: str, load: Load, digits: Digits) -> None:
    signature = load(name, digits(name)).signature
    assert signature.platform == PLATFORMS[name]
    assert signature.inputs == (TensorSpec("image", Datatype.FP32, (-1, 64)),)
    assert signature.outputs == (TensorSpec("probabilities", Datatype.FP32, (-1, 10)),)
    assert signature.batches


def test_it_recognises_a_digit(name: str, load: Load, digits: Digits, digit_image: Array) -> None:
    answer = load(name, digits(name)).run({"image": digit_image}, OUTPUTS)
    assert list(answer) == ["probabilities"]
    assert answer["probabilities"].dtype == np.float32
    assert answer["probabilities"].shape == (1, 10)
    assert answer["probabilities"].sum() == pytest.approx(1, abs=1e-5)
    assert answer["probabilities"].argmax() == 9


@pytest.mark.parametrize("rows", [1, 32, 7])
def test_rows_of_a_batch_are_answered_as_if_alone(name: str, rows: int, load: Load, digits: Digits) -> None:
    model, batch = load(name, digits(name)), images(rows)
    together = model.run({"image": batch}, OUTPUTS)["probabilities"]
    alone = [model.run({"image": batch[row : row + 1]}, OUTPUTS)["probabilities"] for row in range(rows)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)


def test_a_batch_of_no_rows_has_an_answer_of_no_rows(name: str, load: Load, digits: Digits) -> None:
    answer = load(name, digits(name)).run({"image": np.zeros((0, 64), np.float32)}, OUTPUTS)["probabilities"]
    assert answer.shape == (0, 10)
    assert answer.dtype == np.float32


def test_arrays_may_be_read_only_and_strided(name: str, load: Load, digits: Digits) -> None:
    model, wide = load(name, digits(name)), np.repeat(images(4), 2, axis=0)
    wide.setflags(write=False)
    expected = model.run({"image": images(4)}, OUTPUTS)["probabilities"]
    np.testing.assert_allclose(model.run({"image": wide[::2]}, OUTPUTS)["probabilities"], expected, atol=1e-6)


def test_each_of_eight_threads_gets_its_own_answer(name: str, load: Load, digits: Digits) -> None:
    model, batch = load(name, digits(name), Placement(instances=3)), images(96)
    expected = model.run({"image": batch}, OUTPUTS)["probabilities"]

    def ask(start: int) -> bool:
        stop = start + 1 + start % 5
        answer = model.run({"image": batch[start:stop]}, OUTPUTS)["probabilities"]
        return np.allclose(answer, expected[start:stop], atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(80)))


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((1, 63), np.float32), id="wrong dimension"),
        pytest.param(np.zeros(64, np.float32), id="wrong rank"),
        pytest.param(np.zeros((), np.float32), id="scalar"),
        pytest.param(np.zeros((1, 64), np.float64), id="wrong dtype"),
        pytest.param(np.full((1, 64), b"x", object), id="strings"),
    ],
)
def test_what_does_not_fit_is_rejected_and_the_next_request_served(
    name: str, image: Array, load: Load, digits: Digits, digit_image: Array
) -> None:
    model = load(name, digits(name))
    with pytest.raises(InferenceError) as error:
        model.run({"image": image}, OUTPUTS)
    refused(error, ErrorCode.RUNNER_INPUT_REJECTED)
    assert model.run({"image": digit_image}, OUTPUTS)["probabilities"].argmax() == 9


def test_not_a_number_goes_through(name: str, load: Load, digits: Digits) -> None:
    answer = load(name, digits(name)).run({"image": np.full((1, 64), np.nan, np.float32)}, OUTPUTS)
    assert answer["probabilities"].shape == (1, 10)


def test_only_outputs_that_were_asked_for_are_answered(
    name: str, load: Load, digits: Digits, digit_image: Array
) -> None:
    model = load(name, digits(name))
    assert model.run({"image": digit_image}, ()) == {}
    with pytest.raises(KeyError):
        model.run({"image": digit_image}, ("nothing",))


def test_it_may_be_closed_twice_and_loaded_again(name: str, load: Load, digits: Digits, digit_image: Array) -> None:
    model = load(name, digits(name))
    model.close()
    model.close()
    answer = load(name, digits(name)).run({"image": digit_image}, OUTPUTS)
    assert answer["probabilities"].argmax() == 9


def test_a_file_may_be_overwritten_while_its_model_serves(
    name: str, load: Load, digits: Digits, digit_image: Array, tmp_path: Path
) -> None:
    copytree(digits(name), tmp_path / "1")
    model = load(name, tmp_path / "1")
    for file in [path for path in (tmp_path / "1").rglob("*") if path.is_file()]:
        file.write_bytes(b"")
    assert model.run({"image": digit_image}, OUTPUTS)["probabilities"].argmax() == 9


def test_the_configuration_may_name_another_file(name: str, load: Load, digits: Digits, tmp_path: Path) -> None:
    copytree(digits(name), tmp_path / "1")
    (tmp_path / "1" / MODEL_FILENAMES[name]).rename(tmp_path / "1" / "other")
    assert load(name, tmp_path / "1", default_model_filename="other").signature.batches


def test_a_file_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InferenceError) as error:
        backend(name).load(tmp_path, ModelConfig(), Placement())
    assert MODEL_FILENAMES[name] in refused(error, ErrorCode.MODEL_FILE_MISSING)


@pytest.mark.parametrize("content", [b"", b"this is no model" * 100, b"\x08\x01", bytes(range(256))])
def test_a_file_that_is_no_model_is_refused_with_a_reason(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / MODEL_FILENAMES[name]
    if name == "tensorflow":
        file.mkdir()
        (file / "saved_model.pb").write_bytes(content)
    else:
        file.write_bytes(content)
    with pytest.raises(InferenceError) as error:
        backend(name).load(tmp_path, ModelConfig(), Placement())
    message = refused(error, ErrorCode.MODEL_FILE_INVALID)
    assert error.value.context["reason"] in message
    assert str(tmp_path) not in message


def test_a_damaged_model_is_refused(name: str, digits: Digits, tmp_path: Path) -> None:
    copytree(digits(name), tmp_path / "1")
    file = max((path for path in (tmp_path / "1").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:4000])
    with pytest.raises(InferenceError) as error:
        backend(name).load(tmp_path / "1", ModelConfig(), Placement())
    refused(error, ErrorCode.MODEL_FILE_INVALID)


def test_a_device_of_another_kind_is_refused(name: str, digits: Digits) -> None:
    with pytest.raises(InferenceError) as error:
        backend(name).load(digits(name), ModelConfig(), Placement(device="tpu"))
    refused(error, ErrorCode.DEVICE_UNSUPPORTED)
    assert "cpu" in error.value.context["supported"]


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu_instead(name: str, digits: Digits) -> None:
    with pytest.raises(InferenceError) as error:
        backend(name).load(digits(name), ModelConfig(), Placement(device="cuda", device_index=99))
    refused(error, ErrorCode.DEVICE_UNSUPPORTED if name == "litert" else ErrorCode.DEVICE_UNAVAILABLE)
