"""Configurations: read from text and JSON, written as Triton writes them, and faults named with their place."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import (
    MAX_CONFIG_BYTES,
    backend_of,
    config_from_json,
    config_to_json,
    config_to_text,
    data_type_of,
    datatype_of_config,
    model_filename,
    parse_config,
)
from trygon.models.proto.model_config_pb2 import DataType, ModelConfig
from trygon.models.tensors import Datatype

FULL = """
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 64 ] reshape { shape: [ -1, 8, 8 ] } } ]
output [ { name: "y" data_type: TYPE_STRING dims: [ 10 ] label_filename: "labels.txt" } ]
version_policy { specific { versions: [ 1, 9007199254740993 ] } }
instance_group [ { kind: KIND_CPU count: 2 } ]
dynamic_batching {
  max_queue_delay_microseconds: 100
  priority_levels: 3
  default_priority_level: 2
  priority_queue_policy { key: 3 value { max_queue_size: 5 timeout_action: DELAY } }
}
parameters { key: "k" value { string_value: "v" } }
metric_tags { key: "team" value: "vision" }
model_metrics { metric_control { histogram_options { buckets: [ 0.5, 2 ] } } }
"""


def code_of(text: str) -> ErrorCode:
    with pytest.raises(InferenceError) as caught:
        config_from_json(text)
    assert caught.value.message.encode()
    return caught.value.code


def test_text_is_read_and_written() -> None:
    config = parse_config(FULL, source="config.pbtxt")
    assert config.input[0].dims == [-1, 64]
    assert config.dynamic_batching.priority_queue_policy[3].max_queue_size == 5
    assert parse_config(config_to_text(config), source="again") == config


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('name: "x"\nmax_batchsize: 3', ":2:1"),
        ("max_batch_size: 99999999999", ":1:17"),
        ('input {\n  name: "x"\n  data_type: TYPE_FLOAT }', ":3:14"),
        ('name: "x"\nname: "y"', ":2:"),
        ('name: "\\377"', ":1:"),
        ("{", ":1:"),
        ("\ud800", ":"),
    ],
)
def test_faults_in_text_are_named_with_their_place(text: str, place: str) -> None:
    with pytest.raises(InferenceError) as caught:
        parse_config(text, source="digits/config.pbtxt")
    assert caught.value.code is ErrorCode.MODEL_CONFIG_INVALID
    assert caught.value.message.startswith(f"digits/config.pbtxt{place}")
    assert caught.value.context["source"] == "digits/config.pbtxt"


def test_text_and_json_that_are_too_long_are_refused() -> None:
    long = " " * (MAX_CONFIG_BYTES + 1)
    with pytest.raises(InferenceError, match="longer than"):
        parse_config(long, source="s")
    assert code_of(long) is ErrorCode.MODEL_CONFIG_INVALID


@given(st.text(alphabet='{}[]:"\\-1.aname input dims<>#,;\n', max_size=60))
def test_any_text_is_a_configuration_or_is_refused(text: str) -> None:
    for read in (lambda: parse_config(text, source="s"), lambda: config_from_json(text)):
        try:
            read()
        except InferenceError as error:
            assert error.code is ErrorCode.MODEL_CONFIG_INVALID  # noqa: PT017 - refusal is one of two right answers


def test_json_is_triton_s_with_int64_as_numbers() -> None:
    config = parse_config(FULL, source="s")
    written = config_to_json(config)
    assert written["input"][0]["dims"] == [-1, 64]
    assert written["version_policy"] == {"specific": {"versions": [1, 9007199254740993]}}
    assert written["backend"] == ""
    assert written["output"][0]["is_shape_tensor"] is False
    assert written["instance_group"][0]["kind"] == "KIND_CPU"
    assert written["dynamic_batching"]["priority_queue_policy"]["3"]["timeout_action"] == "DELAY"
    assert "sequence_batching" not in written
    assert written["model_warmup"] == []
    assert config_from_json(json.dumps(written)) == config


def test_json_has_the_fields_that_protobuf_s_own_writer_has() -> None:
    config = parse_config(FULL, source="s")
    theirs = json_format.MessageToDict(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )

    def keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: keys(inner) for key, inner in value.items()}
        return [keys(inner) for inner in value] if isinstance(value, list) else None

    assert keys(config_to_json(config)) == keys(theirs)


def test_an_enum_number_that_nobody_knows_stays_a_number() -> None:
    assert config_to_json(ModelConfig.FromString(b"\x2a\x02\x10\x63"))["input"][0]["data_type"] == 99


def test_json_may_use_both_spellings() -> None:
    assert config_from_json('{"max_batch_size": 3}') == config_from_json('{"maxBatchSize": 3}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '""',
        "null",
        "{",
        '{"name": 1}',
        '{"max_batch_size": NaN}',
        '{"max_batch_size": 1e400}',
        '{"max_batch_size": true}',
        '{"nope": 1}',
        '{"name": "\\ud800"}',
        '{"name": "a", "name": "b"}',
        '{"input": 3}',
        '{"input": [{"data_type": "FP32"}]}',
        '{"input":' * 100_000,
        '{"input":' + "[" * 100_000,
        '{"max_batch_size":' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:30],
)
def test_json_that_is_no_configuration_is_refused(text: str) -> None:
    assert code_of(text) is ErrorCode.MODEL_CONFIG_INVALID


@pytest.mark.parametrize(
    ("fields", "backend"),
    [
        ({"backend": "onnxruntime"}, "onnxruntime"),
        ({"platform": "onnxruntime_onnx"}, "onnxruntime"),
        ({"platform": "tensorflow_savedmodel"}, "tensorflow"),
        ({"backend": "tflite"}, "litert"),
        ({"backend": "litert", "platform": "litert_tflite"}, "litert"),
        ({"default_model_filename": "net.tflite"}, "litert"),
        ({"default_model_filename": "net.savedmodel"}, "tensorflow"),
    ],
)
def test_the_backend_follows_from_backend_platform_or_file_name(fields: dict[str, str], backend: str) -> None:
    assert backend_of(ModelConfig(**fields)) == backend


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, ErrorCode.MODEL_BACKEND_UNKNOWN),
        ({"default_model_filename": "weights.bin"}, ErrorCode.MODEL_BACKEND_UNKNOWN),
        ({"backend": "theano"}, ErrorCode.MODEL_BACKEND_UNKNOWN),
        ({"backend": "python"}, ErrorCode.MODEL_CONFIG_UNSUPPORTED),
        ({"platform": "tensorrt_plan"}, ErrorCode.MODEL_CONFIG_UNSUPPORTED),
        ({"backend": "litert", "platform": "onnxruntime_onnx"}, ErrorCode.MODEL_CONFIG_INVALID),
    ],
)
def test_backends_that_are_not_here_are_refused(fields: dict[str, str], code: ErrorCode) -> None:
    with pytest.raises(InferenceError) as caught:
        backend_of(ModelConfig(**fields))
    assert caught.value.code is code


def test_the_model_file_has_a_usual_name_or_the_given_one() -> None:
    assert model_filename(ModelConfig(backend="onnxruntime")) == "model.onnx"
    assert model_filename(ModelConfig(backend="tensorflow", default_model_filename="other")) == "other"


@pytest.mark.parametrize("datatype", Datatype)
def test_every_datatype_has_its_data_type(datatype: Datatype) -> None:
    assert datatype_of_config(data_type_of(datatype), tensor="x") is datatype


def test_strings_are_bytes_and_no_data_type_is_refused() -> None:
    assert datatype_of_config(DataType.TYPE_STRING, tensor="x") is Datatype.BYTES
    for number in (DataType.TYPE_INVALID, 99):
        with pytest.raises(InferenceError) as caught:
            datatype_of_config(number, tensor="x")
        assert caught.value.code is ErrorCode.MODEL_CONFIG_INVALID
