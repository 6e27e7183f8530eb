"""Constraints: nonsense and absent features are refused, each with the field that is at fault."""

import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import parse_config
from trygon.models.constraints import check_config

FINE = [
    "",
    'name: "digits"',
    'backend: "onnxruntime" max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4, 8 ] }',
    'input { name: "x" } output { name: "x" }',
    'input { name: "x" dims: [ 1 ] reshape { } }',
    'input { name: "x" dims: [ -1, 4, -1 ] reshape { shape: [ -1, 2, 2, -1 ] } }',
    'input { name: "x" dims: [ 3, 8, 8 ] format: FORMAT_NCHW }',
    "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 2 value { } } }",
    "dynamic_batching { preferred_batch_size: 8 }",
    "instance_group { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] }",
    'output { name: "y" label_filename: "labels/top.txt" }',
    "response_cache { enable: true } optimization { graph { level: 1 } }",
    "model_transaction_policy { decoupled: false }",
    'model_operations { op_library_filename: [ "one.so", "lib/two.so" ] }',
]
INVALID = {
    'name: "other"': "the model's folder is 'digits'",
    "max_batch_size: -1": "max_batch_size",
    'default_model_filename: "../../etc/passwd"': "default_model_filename",
    'default_model_filename: "sub/model.onnx"': "default_model_filename",
    "input { }": "input has no name",
    'input { name: "x" } input { name: "x" }': "input 'x' appears twice",
    'output { name: "y" } output { name: "y" }': "output 'y' appears twice",
    'input { name: "x" data_type: 99 }': "data_type 99",
    'input { name: "x" dims: [ 0 ] }': "dims of input 'x'",
    'input { name: "x" dims: [ -2 ] }': "dims of input 'x'",
    'input { name: "x" dims: [ 9223372036854775807, 2 ] }': "dims of input 'x'",
    f'input {{ name: "x" dims: [ {", ".join(["1"] * 65)} ] }}': "dims of input 'x'",
    'input { name: "x" reshape { shape: [ 1 ] } }': "no dims",
    'input { name: "x" dims: [ 4 ] reshape { shape: [ 5 ] } }': "differ in size",
    'input { name: "x" dims: [ -1, 4 ] reshape { shape: [ 4, -1 ] } }': "differ in size",
    'input { name: "x" dims: [ -1 ] reshape { } }': "differ in size",
    'output { name: "y" dims: [ 4 ] reshape { shape: [ 0 ] } }': "reshape of output 'y'",
    'input { name: "x" dims: [ 3 ] format: FORMAT_NHWC }': "image format",
    'output { name: "y" label_filename: "/etc/passwd" }': "label_filename",
    'model_operations { op_library_filename: "/lib/evil.so" }': "model_operations",
    'model_operations { op_library_filename: "../evil.so" }': "model_operations",
    "version_policy { specific { versions: [ 0 ] } }": "version_policy",
    "instance_group { count: -1 }": "instance_group.count",
    "instance_group { count: 2000000000 }": "1024 instances",
    "instance_group { } " * 1025: "1024 instances",
    "instance_group { kind: KIND_CPU gpus: 0 }": "exclude each other",
    "instance_group { gpus: -1 }": "device below 0",
    "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }": "above max_batch_size 4",
    "dynamic_batching { preferred_batch_size: 0 }": "below 1",
    "dynamic_batching { priority_levels: 2 }": "default_priority_level",
    "dynamic_batching { priority_levels: 2 default_priority_level: 3 }": "default_priority_level",
    "dynamic_batching { default_priority_level: 1 }": "priority_levels is not",
    "dynamic_batching { priority_queue_policy { key: 1 value { } } }": "priority_queue_policy",
}
UNSUPPORTED = {
    'platform: "ensemble"': "ensemble_scheduling",
    "ensemble_scheduling { }": "ensemble_scheduling",
    "sequence_batching { }": "sequence_batching",
    "model_transaction_policy { decoupled: true }": "model_transaction_policy.decoupled",
    "batch_input { }": "batch_input",
    "batch_output { }": "batch_output",
    "model_repository_agents { agents { } }": "model_repository_agents",
    'input { name: "x" is_shape_tensor: true }': "is_shape_tensor",
    'output { name: "x" is_non_linear_format_io: true }': "is_non_linear_format_io",
    'input { name: "x" allow_ragged_batch: true }': "allow_ragged_batch",
    "instance_group { secondary_devices { } }": "instance_group.secondary_devices",
    "instance_group { passive: true }": "instance_group.passive",
    "instance_group { kind: KIND_GPU } instance_group { kind: KIND_CPU }": "instance_group.kind",
}


@pytest.mark.parametrize("text", FINE)
def test_sensible_configurations_pass(text: str) -> None:
    check_config(parse_config(text, source="s"), folder="digits")


@pytest.mark.parametrize("text", INVALID, ids=lambda text: text[:60])
def test_nonsense_is_refused_and_named(text: str) -> None:
    with pytest.raises(InferenceError) as caught:
        check_config(parse_config(text, source="s"), folder="digits")
    assert caught.value.code is ErrorCode.MODEL_CONFIG_INVALID
    assert INVALID[text] in caught.value.message
    assert caught.value.message.startswith("model 'digits': ")


@pytest.mark.parametrize("text", UNSUPPORTED)
def test_features_that_are_not_here_are_refused_and_named(text: str) -> None:
    with pytest.raises(InferenceError) as caught:
        check_config(parse_config(text, source="s"), folder="digits")
    assert caught.value.code is ErrorCode.MODEL_CONFIG_UNSUPPORTED
    assert caught.value.context == {"model": "digits", "setting": UNSUPPORTED[text]}


def test_a_python_model_is_not_supported() -> None:
    with pytest.raises(InferenceError) as caught:
        check_config(parse_config('backend: "python"', source="s"), folder="digits")
    assert caught.value.code is ErrorCode.MODEL_CONFIG_UNSUPPORTED


def test_an_unsafe_name_is_refused() -> None:
    with pytest.raises(InferenceError) as caught:
        check_config(parse_config('name: "../x"', source="s"))
    assert caught.value.code is ErrorCode.MODEL_NAME_INVALID
