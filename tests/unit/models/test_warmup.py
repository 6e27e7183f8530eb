"""Warm-up: samples of the configuration become batches, within bounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import data_type_of, parse_config
from trygon.models.proto.model_config_pb2 import DataType, ModelConfig
from trygon.models.tensors import Datatype, from_array, join_strings
from trygon.models.warmup import warmup_batches


def config(warmup: str, *, max_batch_size: int = 4, data_type: str = "TYPE_FP32", more: str = "") -> ModelConfig:
    return parse_config(
        f"""
        max_batch_size: {max_batch_size}
        input {{ name: "x" data_type: {data_type} dims: [ -1, 2 ] }} {more}
        model_warmup {{ name: "w" {warmup} }}
        """,
        source="s",
    )


def sample(fill: str = "zero_data: true", dims: str = "[ 3, 2 ]", data_type: str = "TYPE_FP32", name: str = "x") -> str:
    return f'inputs {{ key: "{name}" value {{ data_type: {data_type} dims: {dims} {fill} }} }}'


def batch(text: str, folder: Path = Path(), **given: Any) -> Any:
    (only,) = warmup_batches(config(text, **given), folder)
    return only["x"]


def fault(text: str, folder: Path = Path(), **given: Any) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        list(warmup_batches(config(text, **given), folder))
    return caught.value


def test_without_samples_there_is_nothing_to_run() -> None:
    assert list(warmup_batches(ModelConfig(), Path())) == []


def test_zeros_fill_the_batch() -> None:
    array = batch(f"batch_size: 2 {sample()}")
    assert array.shape == (2, 3, 2)
    assert array.dtype == np.float32
    assert not array.any()


def test_a_model_that_does_not_batch_gets_the_dims_alone() -> None:
    assert batch(sample(), max_batch_size=0).shape == (3, 2)


def test_a_sample_runs_as_often_as_it_says() -> None:
    assert len(list(warmup_batches(config(f"count: 3 {sample()}"), Path()))) == 3


@pytest.mark.parametrize("datatype", Datatype)
@pytest.mark.parametrize("fill", ["zero_data: true", "random_data: true"])
def test_every_datatype_can_be_filled(datatype: Datatype, fill: str) -> None:
    name = DataType.Name(data_type_of(datatype))
    array = batch(sample(fill, data_type=name), data_type=name)
    assert array.shape == (1, 3, 2)
    assert from_array("x", array).datatype is datatype


def test_random_values_are_small_and_the_same_each_time() -> None:
    text = sample("random_data: true", data_type="TYPE_INT64", dims="[ 500, 2 ]")
    array = batch(text, data_type="TYPE_INT64")
    assert len(np.unique(array)) > 50
    assert array.min() >= 0
    assert array.max() < 100
    np.testing.assert_array_equal(array, batch(text, data_type="TYPE_INT64"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "warmup").mkdir()
    return tmp_path


def test_a_file_holds_one_row_that_is_repeated_or_the_whole_batch(folder: Path) -> None:
    row = np.arange(2, dtype=np.float32)
    text = "batch_size: 2 " + sample('input_data_file: "x.bin"', dims="[ 1, 2 ]")
    (folder / "warmup" / "x.bin").write_bytes(row.tobytes())
    assert batch(text, folder).tolist() == [[[0, 1]], [[0, 1]]]
    (folder / "warmup" / "x.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    assert batch(text, folder).tolist() == [[[0, 1]], [[2, 3]]]


def test_a_file_of_strings_has_their_lengths(folder: Path) -> None:
    (folder / "warmup" / "x.bin").write_bytes(join_strings(["a", "bc"], tensor="x"))
    text = sample('input_data_file: "x.bin"', dims="[ 1, 2 ]", data_type="TYPE_STRING")
    assert batch(text, folder, data_type="TYPE_STRING").tolist() == [[[b"a", b"bc"]]]
    assert batch(text, folder, data_type="TYPE_STRING", max_batch_size=0).tolist() == [[b"a", b"bc"]]


def test_files_that_are_missing_outside_or_of_another_size_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sample('input_data_file: "x.bin"')
    assert fault(text, folder).code is ErrorCode.MODEL_FILE_MISSING
    (folder / "warmup" / "x.bin").write_bytes(b"123")
    for given in ({}, {"max_batch_size": 0}):
        error = fault(text, folder, **given)
        assert error.code is ErrorCode.MODEL_CONFIG_INVALID
        assert "3 bytes" in error.message
    assert fault(sample('input_data_file: "../x"'), folder).code is ErrorCode.MODEL_CONFIG_INVALID
    monkeypatch.setattr("trygon.models.warmup.MAX_WARMUP_BYTES", 100)
    (folder / "warmup" / "x.bin").write_bytes(b"1" * 101)
    assert "longer than 100 bytes" in fault(text, folder).message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"batch_size: 5 {sample()}", "above max_batch_size 4"),
        (f"count: 4000000000 {sample()}", "count 4000000000"),
        ("", "lacks the inputs ['x']"),
        (sample() + sample(name="q"), "is none of the model's"),
        (sample(data_type="TYPE_FP64"), "the model takes FP32 [-1, 2]"),
        (sample(data_type="TYPE_INVALID"), "data_type 0"),
        (sample(dims="[ 3, 3 ]"), "the model takes FP32 [-1, 2]"),
        (sample(dims="[ 3 ]"), "the model takes FP32 [-1, 2]"),
        (sample(dims="[ -1, 2 ]"), "the model takes FP32 [-1, 2]"),
        (sample(dims="[ 9223372036854775807, 2 ]"), "more than"),
        (sample(dims="[ 1000000000, 2 ]"), "the most is"),
        (sample(fill=""), "none of zero_data, random_data and input_data_file"),
    ],
)
def test_samples_that_do_not_fit_are_refused(text: str, reason: str) -> None:
    error = fault(text)
    assert error.code is ErrorCode.MODEL_CONFIG_INVALID
    assert reason in error.message


def test_a_model_that_does_not_batch_has_no_batch_size() -> None:
    assert "above max_batch_size 0" in fault(f"batch_size: 2 {sample()}", max_batch_size=0).message


def test_optional_inputs_may_be_left_out() -> None:
    more = 'input { name: "o" data_type: TYPE_FP32 dims: 1 optional: true }'
    assert batch(sample(), more=more).shape == (1, 3, 2)
