"""Completion: what a configuration leaves out comes from the model file, and what it says must agree with the file."""

from pathlib import Path

import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Signature
from trygon.models.completion import MAX_LABELS_BYTES, complete, describe, labels
from trygon.models.config import parse_config
from trygon.models.proto.model_config_pb2 import DataType, ModelConfig
from trygon.models.tensors import Datatype, TensorSpec

BATCHING = Signature(
    platform="onnxruntime_onnx",
    inputs=(TensorSpec("image", Datatype.FP32, (-1, 64)), TensorSpec("mask", Datatype.BOOL, (-1, -1, 3))),
    outputs=(TensorSpec("scores", Datatype.FP32, (-1, 10)), TensorSpec("label", Datatype.INT64, (-1,))),
    batches=True,
)
FIXED = Signature(
    platform="tensorflow_savedmodel",
    inputs=(TensorSpec("x", Datatype.BYTES, (1, 8)),),
    outputs=(TensorSpec("y", Datatype.FP32, ()),),
    batches=False,
)


def completed(text: str = "", signature: Signature = BATCHING, default: int = 4) -> ModelConfig:
    return complete(parse_config(f'name: "m" {text}', source="s"), signature, default_max_batch_size=default)


def mismatch(text: str, signature: Signature = BATCHING) -> str:
    with pytest.raises(InferenceError) as caught:
        completed(text, signature)
    assert caught.value.code is ErrorCode.MODEL_CONFIG_MISMATCH
    assert caught.value.message.startswith("model 'm': ")
    return caught.value.message


def test_an_empty_configuration_is_made_from_the_file() -> None:
    assert completed() == parse_config(
        """
        name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime" default_model_filename: "model.onnx"
        max_batch_size: 4 dynamic_batching { }
        input { name: "image" data_type: TYPE_FP32 dims: 64 }
        input { name: "mask" data_type: TYPE_BOOL dims: [ -1, 3 ] }
        output { name: "scores" data_type: TYPE_FP32 dims: 10 }
        output { name: "label" data_type: TYPE_INT64 dims: 1 reshape { } }
        """,
        source="s",
    )


def test_a_file_that_does_not_batch_keeps_all_its_dimensions() -> None:
    config = completed(signature=FIXED)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert config.input[0].dims == [1, 8]
    assert config.input[0].data_type == DataType.TYPE_STRING
    assert config.output[0].dims == [1]
    assert config.output[0].HasField("reshape")


def test_the_given_configuration_is_left_alone() -> None:
    given = ModelConfig(name="m")
    complete(given, BATCHING, default_max_batch_size=4)
    assert given == ModelConfig(name="m")


def test_completing_twice_changes_nothing() -> None:
    once = completed()
    assert complete(once, BATCHING, default_max_batch_size=99) == once


def test_defaults_of_one_and_none_bring_no_dynamic_batching() -> None:
    for default in (0, 1):
        config = completed(default=default)
        assert config.max_batch_size == default
        assert not config.HasField("dynamic_batching")


def test_a_given_batch_size_and_scheduler_are_kept() -> None:
    config = completed("max_batch_size: 32")
    assert config.max_batch_size == 32
    assert not config.HasField("dynamic_batching")
    config = completed("dynamic_batching { preferred_batch_size: 2 }")
    assert config.max_batch_size == 4
    assert config.dynamic_batching.preferred_batch_size == [2]


def test_a_preferred_size_above_the_default_batch_is_refused() -> None:
    with pytest.raises(InferenceError, match="preferred_batch_size 8 is above max_batch_size 4"):
        completed("dynamic_batching { preferred_batch_size: 8 }")


def test_partial_tensors_are_matched_by_name_and_filled_in() -> None:
    config = completed('input { name: "mask" dims: [ 7, 3 ] } output { name: "label" label_filename: "l.txt" }')
    assert [tensor.name for tensor in config.input] == ["mask", "image"]
    assert config.input[0].data_type == DataType.TYPE_BOOL
    assert config.input[0].dims == [7, 3]
    assert config.max_batch_size == 4
    assert [(tensor.name, tensor.label_filename) for tensor in config.output] == [("label", "l.txt")]


def test_dims_with_all_dimensions_mean_a_model_that_does_not_batch() -> None:
    config = completed(
        'input { name: "image" dims: [ -1, 64 ] } input { name: "mask" dims: [ 2, -1, 3 ] } output { name: "scores" }'
    )
    assert config.max_batch_size == 0
    assert config.output[0].dims == [-1, 10]


def test_dims_without_the_batch_dimension_batch_even_when_the_default_is_not_to() -> None:
    assert completed('input { name: "image" dims: 64 }', default=0).max_batch_size == 1


def test_only_the_outputs_that_are_named_need_a_batch_dimension() -> None:
    signature = Signature(
        "onnxruntime_onnx",
        BATCHING.inputs,
        (*BATCHING.outputs, TensorSpec("loss", Datatype.FP32, ())),
        batches=False,
    )
    assert completed('max_batch_size: 8 output { name: "scores" }', signature).max_batch_size == 8
    assert "output 'loss' of the model file has shape []" in mismatch("max_batch_size: 8", signature)


def test_mixed_and_impossible_batch_dimensions_are_refused() -> None:
    message = mismatch('input { name: "image" dims: 64 } input { name: "mask" dims: [ -1, -1, 3 ] }')
    assert "max_batch_size is 0, but the dims of ['image']" in message
    assert "set max_batch_size" in mismatch('input { name: "x" dims: 8 }', FIXED)
    assert "whose first dimension is no batch" in mismatch("max_batch_size: 2", FIXED)


def test_a_file_for_one_row_may_say_so() -> None:
    signature = Signature(
        "litert_tflite",
        (TensorSpec("x", Datatype.FP32, (1, 8)),),
        (TensorSpec("y", Datatype.FP32, (1, 2)),),
        batches=False,
    )
    config = completed("max_batch_size: 1", signature)
    assert config.input[0].dims == [8]
    assert "first dimension" in mismatch("max_batch_size: 2", signature)


def test_names_datatypes_and_dims_must_agree_with_the_file() -> None:
    assert "input 'img', the model file has inputs ['image', 'mask']" in mismatch('input { name: "img" }')
    assert "output 'y', the model file has outputs" in mismatch('output { name: "y" }')
    assert "input 'image' is FP64 in the configuration and FP32 in the model file" in mismatch(
        'input { name: "image" data_type: TYPE_FP64 }'
    )
    assert "dims [63] in the configuration and [64] in the model file" in mismatch(
        'max_batch_size: 2 input { name: "image" dims: 63 }'
    )
    assert "dims [64, 1]" in mismatch('max_batch_size: 2 input { name: "image" dims: [ 64, 1 ] }')
    assert "reshape [32]" in mismatch('max_batch_size: 2 input { name: "image" dims: [ 4, 8 ] reshape { shape: 32 } }')
    assert "asks for 'tensorflow', the model file is for 'onnxruntime'" in mismatch('backend: "tensorflow"')


def test_a_reshape_is_compared_with_the_file_and_hidden_from_callers() -> None:
    config = completed('max_batch_size: 2 input { name: "image" dims: [ 8, 8 ] reshape { shape: 64 } }')
    description = describe(config, BATCHING, {})
    assert description.inputs[0].shape == (-1, 8, 8)


def test_a_description_starts_with_the_batch_dimension_only_if_the_model_batches() -> None:
    description = describe(completed(), BATCHING, {"label": ("a",)})
    assert [spec.shape for spec in description.inputs] == [(-1, 64), (-1, -1, 3)]
    assert [spec.shape for spec in description.outputs] == [(-1, 10), (-1, 1)]
    assert description.labels == {"label": ("a",)}
    assert ModelConfig.FromString(description.config) == completed()
    alone = describe(completed(signature=FIXED), FIXED, {})
    assert (alone.platform, alone.max_batch_size) == ("tensorflow_savedmodel", 0)
    assert [spec.shape for spec in (*alone.inputs, *alone.outputs)] == [(1, 8), (1,)]
    assert alone.inputs[0].datatype is Datatype.BYTES


def test_optional_inputs_come_from_the_configuration_and_the_file() -> None:
    optional = TensorSpec("image", Datatype.FP32, (-1, 64), optional=True)
    signature = Signature("onnxruntime_onnx", (optional, BATCHING.inputs[1]), BATCHING.outputs, batches=True)
    described = describe(completed('input { name: "mask" optional: true }', signature), signature, {})
    assert {spec.name: spec.optional for spec in described.inputs} == {"mask": True, "image": True}


def test_labels_are_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("zero\r\n\n zwö \n\n".encode())
    config = parse_config('output { name: "y" label_filename: "l.txt" } output { name: "z" }', source="s")
    assert labels(config, tmp_path) == {"y": ("zero", "", "zwö")}


def test_label_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    config = parse_config('output { name: "y" label_filename: "l.txt" }', source="s")
    with pytest.raises(InferenceError) as caught:
        labels(config, tmp_path)
    assert caught.value.code is ErrorCode.MODEL_FILE_MISSING
    for content in (b"\xff", b"a" * (MAX_LABELS_BYTES + 1)):
        (tmp_path / "l.txt").write_bytes(content)
        with pytest.raises(InferenceError) as caught:
            labels(config, tmp_path)
        assert caught.value.code is ErrorCode.MODEL_CONFIG_INVALID
