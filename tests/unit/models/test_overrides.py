"""Overrides: models that come with a load request are written whole, in their own folder, or refused."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.errors import ErrorCode, InferenceError
from trygon.models.overrides import materialise
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.repository import ModelRepository

CONFIG = ModelConfig(name="m", backend="onnxruntime")
FILES = {"file:1/model.onnx": b"one", "2/sub/model.onnx": b"two", "labels.txt": b"a"}


def code_of(files: dict[str, bytes], into: Path, config: ModelConfig = CONFIG, name: str = "m") -> ErrorCode:
    with pytest.raises(InferenceError) as caught:
        materialise(name, config, files, into)
    return caught.value.code


def test_a_folder_is_written_whole(tmp_path: Path) -> None:
    into = tmp_path / "state" / "overrides"
    folder = materialise("m", CONFIG, FILES, into)
    assert folder.name == "m"
    assert folder.is_relative_to(into / "m")
    assert (folder / "1" / "model.onnx").read_bytes() == b"one"
    assert (folder / "2" / "sub" / "model.onnx").read_bytes() == b"two"
    assert (folder / "labels.txt").read_bytes() == b"a"
    assert "onnxruntime" in (folder / "config.pbtxt").read_text()
    assert [path.name for path in (into / "m").iterdir()] == [folder.parent.name]


def test_equal_content_has_one_folder_and_other_content_another(tmp_path: Path) -> None:
    first = materialise("m", CONFIG, FILES, tmp_path)
    assert materialise("m", CONFIG, FILES, tmp_path) == first
    second = materialise("m", CONFIG, FILES | {"labels.txt": b"b"}, tmp_path)
    third = materialise("m", ModelConfig(backend="litert"), FILES, tmp_path)
    assert len({first, second, third}) == 3
    assert (first / "labels.txt").read_bytes() == b"a"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"file:model.onnx": b""},
        {"file:v1/model.onnx": b""},
        {"file:1": b""},
        {"1/model.onnx": b"", "../evil": b""},
        {"1/model.onnx": b"", "/etc/evil": b""},
        {"1/model.onnx": b"", "1/../../evil": b""},
        {"1/model.onnx": b"", "1\\evil": b""},
        {"1/model.onnx": b"", "1/evil\0": b""},
        {"1/model.onnx": b"", ".hidden": b""},
        {"1/model.onnx": b"", "config.pbtxt": b""},
        {"1/model.onnx": b"", "file:1/model.onnx": b""},
        {"1/model.onnx": b"", "1/model.onnx/x": b""},
    ],
    ids=" ".join,
)
def test_unsafe_contradicting_and_versionless_files_are_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    assert code_of(files, tmp_path) is ErrorCode.REQUEST_PARAMETER_INVALID
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(st.text(alphabet="./1a\\~\0", max_size=12), st.just(b""), max_size=3))
def test_no_path_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    base = tmp_path_factory.mktemp("base")
    try:
        folder = materialise("m", CONFIG, files, base / "into")
    except InferenceError:
        assert not (base / "into").exists()
        return
    written = {path for path in base.rglob("*") if path.is_file()}
    assert len(written) == len(files) + 1
    assert all(path.is_relative_to(folder) for path in written)


def test_names_and_configurations_are_checked(tmp_path: Path) -> None:
    assert code_of(FILES, tmp_path, name="../m") is ErrorCode.MODEL_NAME_INVALID
    assert code_of(FILES, tmp_path, ModelConfig(name="other")) is ErrorCode.MODEL_CONFIG_INVALID


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, ErrorCode.STORAGE_FULL), (errno.EROFS, ErrorCode.STORAGE_UNAVAILABLE)]
)
def test_a_failing_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: ErrorCode
) -> None:
    def fail(_: Path, __: Path) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "rename", fail)
    assert code_of(FILES, tmp_path) is code
    assert list((tmp_path / "m").iterdir()) == []


def test_a_load_that_another_one_overtook_uses_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def rename_late(draft: Path, target: Path) -> Path:
        shutil.copytree(draft, target)
        return rename(draft, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    folder = materialise("m", CONFIG, FILES, tmp_path)
    assert (folder / "1" / "model.onnx").read_bytes() == b"one"
    assert list((tmp_path / "m").iterdir()) == [folder.parent]


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    folder = tmp_path / "repository" / "m"
    for version in ("1", "2"):
        (folder / version).mkdir(parents=True)
        (folder / version / "model.onnx").write_bytes(b"")
    (folder / "config.pbtxt").write_text("max_batch_size: 1")
    return ModelRepository([tmp_path / "repository"])


def test_a_configuration_alone_goes_with_the_repository_s_files(repository: ModelRepository, tmp_path: Path) -> None:
    config = json.dumps({"max_batch_size": 5, "version_policy": {"all": {}}})
    entry = repository.override("m", config, {}, into=tmp_path / "into")
    assert [spec.version for spec in entry.specs] == [1, 2]
    assert entry.config.max_batch_size == 5
    assert entry.path == tmp_path / "repository" / "m"
    assert entry.specs[1].generation != repository.entry("m").specs[0].generation
    assert not (tmp_path / "into").exists()


def test_files_take_the_place_of_the_whole_folder(repository: ModelRepository, tmp_path: Path) -> None:
    entry = repository.override("m", "{}", {"file:7/model.tflite": b"x"}, into=tmp_path / "into")
    assert entry.versions == (7,)
    assert entry.config.backend == "litert"
    assert entry.config.max_batch_size == 0
    assert Path(entry.specs[0].path, "model.tflite").read_bytes() == b"x"


def test_files_may_bring_a_model_that_no_repository_has(repository: ModelRepository, tmp_path: Path) -> None:
    assert repository.override("new", "{}", {"1/model.onnx": b"x"}, into=tmp_path).name == "new"


@pytest.mark.parametrize("files", [{}, {"file:1/model.onnx": b"x", "file:evil.so": b"x"}])
def test_a_caller_brings_no_native_code(repository: ModelRepository, tmp_path: Path, files: dict[str, bytes]) -> None:
    config = json.dumps({"model_operations": {"op_library_filename": ["evil.so"]}})
    with pytest.raises(InferenceError, match="only the repository's own configuration") as caught:
        repository.override("m", config, files, into=tmp_path / "into")
    assert caught.value.code is ErrorCode.MODEL_CONFIG_UNSUPPORTED
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("name", "config", "files", "code"),
    [
        ("m", None, {"1/model.onnx": b""}, ErrorCode.REQUEST_PARAMETER_INVALID),
        ("m", "?", {}, ErrorCode.MODEL_CONFIG_INVALID),
        ("none", "{}", {}, ErrorCode.MODEL_NOT_FOUND),
        ("../m", "{}", {}, ErrorCode.MODEL_NAME_INVALID),
    ],
)
def test_overrides_that_say_too_little_are_refused(
    repository: ModelRepository, tmp_path: Path, name: str, config: str | None, files: dict[str, bytes], code: ErrorCode
) -> None:
    with pytest.raises(InferenceError) as caught:
        repository.override(name, config, files, into=tmp_path / "into")
    assert caught.value.code is code
