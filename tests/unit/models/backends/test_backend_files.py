"""The model file is named inside its version's folder."""

from pathlib import Path

import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.files import model_file
from trygon.models.proto.model_config_pb2 import ModelConfig


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "model" / "1"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "model" / "model.onnx").write_bytes(b"")
    (folder / "model.onnx").write_bytes(b"")
    return folder


def find(version: Path, name: str = "", backend: str = "onnxruntime") -> Path:
    return model_file(version, ModelConfig(default_model_filename=name), backend)


def code_of(version: Path, name: str = "", backend: str = "onnxruntime") -> ErrorCode:
    with pytest.raises(InferenceError) as error:
        find(version, name, backend)
    assert len(error.value.message) < 300
    return error.value.code


def test_each_backend_has_a_file_name_of_its_own(version: Path) -> None:
    (version / "model.tflite").write_bytes(b"")
    (version / "model.savedmodel").mkdir()
    found = [find(version, backend=backend).name for backend in ("onnxruntime", "tensorflow", "litert")]
    assert found == ["model.onnx", "model.savedmodel", "model.tflite"]


def test_a_file_in_a_folder_of_the_version_may_be_named(version: Path) -> None:
    (version / "sub").mkdir()
    (version / "sub" / "net.onnx").write_bytes(b"")
    assert find(version, "sub/net.onnx") == (version / "sub" / "net.onnx").resolve()


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "..",
        ".",
        "/etc/passwd",
        "sub/../../model.onnx",
        "a\x00b",
        "x" * 5000,
        "a/" * 5000,
        "//",
        "a\\b",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(version: Path, name: str) -> None:
    assert code_of(version, name) is ErrorCode.MODEL_CONFIG_INVALID


def test_where_links_lead_is_for_the_repository_to_check(version: Path) -> None:
    (version / "shared.onnx").symlink_to(version.parent / "model.onnx")
    (version / "in.onnx").symlink_to("model.onnx")
    assert find(version, "shared.onnx") == (version.parent / "model.onnx").resolve()
    assert find(version, "in.onnx").name == "model.onnx"


def test_a_link_to_nothing_is_a_missing_file(version: Path) -> None:
    (version / "broken.onnx").symlink_to(version / "gone.onnx")
    (version / "loop.onnx").symlink_to(version / "loop.onnx")
    assert code_of(version, "broken.onnx") is ErrorCode.MODEL_FILE_MISSING
    assert code_of(version, "loop.onnx") is ErrorCode.MODEL_FILE_MISSING


def test_the_versions_folder_itself_may_be_a_link(version: Path) -> None:
    link = version.with_name("2")
    link.symlink_to(version)
    assert find(link).name == "model.onnx"


def test_a_folder_is_no_file_and_a_file_no_folder(version: Path) -> None:
    (version / "folder").mkdir()
    assert code_of(version, "folder") is ErrorCode.MODEL_FILE_INVALID
    assert code_of(version, "model.onnx", "tensorflow") is ErrorCode.MODEL_FILE_INVALID


def test_a_missing_file_is_told(version: Path) -> None:
    assert code_of(version, "nothing.onnx") is ErrorCode.MODEL_FILE_MISSING
