"""The repository: what is found, what is broken, and that one bad model hides no other."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from trygon.errors import ErrorCode, InferenceError
from trygon.models.config import parse_config
from trygon.models.entry import ModelEntry, read_entry, runner_of
from trygon.models.generation import MAX_FILES
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.repository import ModelRepository, RepositoryScan, changes

WriteModel: TypeAlias = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
def write(root: Path) -> WriteModel:
    def write_model(name: str, *versions: str, config: str | None = None, file: str = "model.onnx") -> Path:
        folder = root / name
        for version in versions or ("1",):
            (folder / version).mkdir(parents=True)
            (folder / version / file).write_bytes(b"model")
        if config is not None:
            (folder / "config.pbtxt").write_text(config)
        return folder

    return write_model


def entry_of(root: Path, name: str) -> ModelEntry:
    return ModelRepository([root]).entry(name)


def fault_of(root: Path, name: str) -> InferenceError:
    scan = ModelRepository([root]).scan()
    assert name not in scan.entries
    return scan.faults[name]


def test_a_model_without_a_configuration_is_known_by_its_file(root: Path, write: WriteModel) -> None:
    write("a", file="model.onnx")
    write("b", file="model.tflite")
    (write("c", file="other") / "1" / "model.savedmodel").mkdir()
    scan = ModelRepository([root]).scan()
    assert scan.faults == {}
    assert {name: entry.config.backend for name, entry in scan.entries.items()} == {
        "a": "onnxruntime",
        "b": "litert",
        "c": "tensorflow",
    }
    assert {name: entry.specs[0].runner for name, entry in scan.entries.items()} == {
        "a": "onnx-cpu",
        "b": "litert-cpu",
        "c": "tensorflow-cpu",
    }


def test_an_entry_has_what_a_runner_needs(root: Path, write: WriteModel) -> None:
    folder = write("m", "1", "2", "10", "03", "tmp", config='platform: "onnxruntime_onnx" max_batch_size: 3')
    entry = entry_of(root, "m")
    assert entry.name == "m"
    assert entry.versions == (1, 2, 10)
    (spec,) = entry.specs
    assert (spec.model, spec.version, spec.runner) == ("m", 10, "onnx-cpu")
    assert (spec.model_path, spec.path) == (str(folder), str(folder / "10"))
    assert ModelConfig.FromString(spec.config) == entry.config
    assert (entry.config.name, entry.config.backend, entry.config.max_batch_size) == ("m", "onnxruntime", 3)


def test_the_version_policy_chooses_and_tells_what_is_absent(root: Path, write: WriteModel) -> None:
    write("m", "1", "2", "3", config="version_policy { specific { versions: [ 1, 3, 8 ] } }")
    entry = entry_of(root, "m")
    assert [spec.version for spec in entry.specs] == [1, 3]
    assert entry.absent == (8,)


@pytest.mark.parametrize(
    ("config", "gpus", "runner"),
    [
        ('backend: "onnxruntime"', False, "onnx-cpu"),
        ('backend: "onnxruntime"', True, "onnx-cuda"),
        ('backend: "litert"', True, "litert-cpu"),
        ('backend: "tensorflow" instance_group { kind: KIND_GPU }', False, "tensorflow-cuda"),
        ('backend: "tensorflow" instance_group { kind: KIND_CPU }', True, "tensorflow-cpu"),
        ('backend: "tensorflow" instance_group { kind: KIND_AUTO }', False, "tensorflow-cpu"),
    ],
)
def test_the_runner_follows_from_backend_and_instance_group(config: str, gpus: bool, runner: str) -> None:  # noqa: FBT001 - pytest passes it by name
    assert runner_of(parse_config(config, source="s"), gpus=gpus) == runner


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("nonsense", ErrorCode.MODEL_CONFIG_INVALID),
        ('name: "other"', ErrorCode.MODEL_CONFIG_INVALID),
        ("sequence_batching { }", ErrorCode.MODEL_CONFIG_UNSUPPORTED),
        ('backend: "theano"', ErrorCode.MODEL_BACKEND_UNKNOWN),
        ("version_policy { specific { versions: [ 5 ] } }", ErrorCode.MODEL_FILE_MISSING),
        (" " * 2_000_000, ErrorCode.MODEL_CONFIG_INVALID),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_broken_configuration_is_a_fault_that_hides_no_other(
    root: Path, write: WriteModel, config: str, code: ErrorCode
) -> None:
    write("bad", config=config)
    write("good")
    scan = ModelRepository([root]).scan()
    assert list(scan.entries) == ["good"]
    assert {name: fault.code for name, fault in scan.faults.items()} == {"bad": code}


def test_broken_folders_are_faults(root: Path, write: WriteModel) -> None:
    (root / "empty").mkdir()
    write("nothing", file="weights.bin")
    write("both")
    (root / "both" / "1" / "model.tflite").write_bytes(b"")
    write("bad name")
    (write("binary") / "config.pbtxt").write_bytes(b"\xff\xfe")
    (write("folder") / "config.pbtxt").mkdir()
    scan = ModelRepository([root]).scan()
    assert scan.entries == {}
    assert {name: fault.code for name, fault in scan.faults.items()} == {
        "empty": ErrorCode.MODEL_FILE_MISSING,
        "nothing": ErrorCode.MODEL_FILE_MISSING,
        "both": ErrorCode.MODEL_CONFIG_INVALID,
        "bad name": ErrorCode.MODEL_NAME_INVALID,
        "binary": ErrorCode.MODEL_CONFIG_INVALID,
        "folder": ErrorCode.MODEL_CONFIG_INVALID,
    }


def test_a_pipe_in_the_place_of_a_configuration_does_not_hang_the_scan(root: Path, write: WriteModel) -> None:
    os.mkfifo(write("m") / "config.pbtxt")
    assert fault_of(root, "m").code is ErrorCode.MODEL_CONFIG_INVALID


def test_a_folder_whose_name_is_no_text_is_a_fault_that_can_be_shown(root: Path) -> None:
    os.mkdir(os.fsencode(root) + b"/\xff")  # noqa: PTH102 - Path cannot name it
    assert fault_of(root, "?").message.encode()


def test_hidden_folders_files_and_lost_and_found_are_no_models(root: Path, write: WriteModel) -> None:
    write(".git")
    write("lost+found")
    (root / "README.md").write_text("")
    assert ModelRepository([root]).scan() == RepositoryScan()


def test_roots_must_be_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        with pytest.raises(InferenceError) as caught:
            ModelRepository([tmp_path / name])
        assert caught.value.code is ErrorCode.MODEL_REPOSITORY_INVALID


def test_a_root_that_went_away_is_no_empty_repository(root: Path) -> None:
    repository = ModelRepository([root])
    root.rmdir()
    with pytest.raises(InferenceError) as caught:
        repository.scan()
    assert caught.value.code is ErrorCode.MODEL_REPOSITORY_INVALID


def test_one_name_in_two_roots_is_a_conflict(root: Path, write: WriteModel, tmp_path: Path) -> None:
    write("m")
    write("only")
    other = tmp_path / "other"
    (other / "m" / "1").mkdir(parents=True)
    repository = ModelRepository([root, other])
    scan = repository.scan()
    assert list(scan.entries) == ["only"]
    assert scan.faults["m"].code is ErrorCode.MODEL_REPOSITORY_CONFLICT
    with pytest.raises(InferenceError) as caught:
        repository.entry("m")
    assert caught.value.code is ErrorCode.MODEL_REPOSITORY_CONFLICT


def test_one_root_given_twice_is_one_root(root: Path, write: WriteModel, tmp_path: Path) -> None:
    write("m")
    (tmp_path / "alias").symlink_to(root)
    assert list(ModelRepository([root, tmp_path / "alias", root]).scan().entries) == ["m"]


@pytest.mark.parametrize(
    ("name", "code"), [("none", ErrorCode.MODEL_NOT_FOUND), ("../repository/m", ErrorCode.MODEL_NAME_INVALID)]
)
def test_entries_that_are_not_there_are_refused(root: Path, write: WriteModel, name: str, code: ErrorCode) -> None:
    write("m")
    with pytest.raises(InferenceError) as caught:
        entry_of(root, name)
    assert caught.value.code is code


def test_a_folder_made_of_links_like_a_config_map_is_read(root: Path, write: WriteModel) -> None:
    folder = write("..2026_11_23").rename(root / "..2026_11_23")
    (root / "..data").symlink_to(folder.name)
    (root / "m").mkdir()
    (root / "m" / "1").symlink_to("../..data/1")
    assert [spec.version for spec in entry_of(root, "m").specs] == [1]


def test_links_that_leave_the_repository_are_faults(root: Path, write: WriteModel, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (outside / "1" / "model.onnx").write_bytes(b"secret")
    (outside / "config.pbtxt").write_text("")
    (root / "model").symlink_to(outside)
    (root / "version").mkdir()
    (root / "version" / "1").symlink_to(outside / "1")
    (write("file") / "1" / "data").symlink_to(outside / "1" / "model.onnx")
    (write("config") / "config.pbtxt").symlink_to(outside / "config.pbtxt")
    (root / "gone").symlink_to(outside / "nothing")
    scan = ModelRepository([root]).scan()
    assert scan.entries == {}
    assert {name: fault.code for name, fault in scan.faults.items()} == dict.fromkeys(
        ("config", "file", "model", "version"), ErrorCode.MODEL_REPOSITORY_INVALID
    )


def test_broken_links_and_circles_are_faults_or_harmless(root: Path, write: WriteModel) -> None:
    (write("broken") / "1" / "data").symlink_to("nothing")
    (write("self") / "config.pbtxt").symlink_to("config.pbtxt")
    (write("circle") / "1" / "up").symlink_to("..")
    scan = ModelRepository([root]).scan()
    assert list(scan.entries) == ["circle"]
    assert {fault.code for fault in scan.faults.values()} == {ErrorCode.MODEL_FILE_MISSING}


def test_a_model_that_cannot_be_read_is_a_fault(root: Path, write: WriteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    write("m")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr(Path, "iterdir", refuse)
    fault = fault_of(root, "m")
    assert fault.code is ErrorCode.MODEL_FILE_INVALID
    assert "Permission denied" in fault.message


def test_a_version_with_endless_files_is_a_fault(
    root: Path, write: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write("m")
    for index in range(5):
        (folder / "1" / str(index)).write_bytes(b"")
    assert MAX_FILES > 5
    monkeypatch.setattr("trygon.models.generation.MAX_FILES", 5)
    assert fault_of(root, "m").code is ErrorCode.MODEL_FILE_INVALID


def test_custom_operators_are_for_onnx_models_alone(root: Path, write: WriteModel) -> None:
    config = 'model_operations { op_library_filename: "ops.so" }'
    write("tiny", config=config, file="model.tflite")
    write("right", config=config)
    assert fault_of(root, "tiny").context == {"model": "tiny", "field": "model_operations"}
    assert entry_of(root, "right").config.model_operations.op_library_filename == ["ops.so"]


def test_the_generation_changes_with_files_labels_and_configuration(root: Path, write: WriteModel) -> None:
    folder = write(
        "m",
        config='output { name: "y" label_filename: "labels.txt" } model_operations { op_library_filename: "ops.so" }',
    )
    seen = [entry_of(root, "m").specs[0].generation]

    def changed() -> bool:
        seen.append(entry_of(root, "m").specs[0].generation)
        return seen[-1] != seen[-2]

    assert not changed()
    (folder / "labels.txt").write_text("a")
    assert changed()
    (folder / "ops.so").write_bytes(b"")
    assert changed()
    (folder / "1" / "model.onnx").write_bytes(b"model 2")
    assert changed()
    os.utime(folder / "1" / "model.onnx", ns=(1, 1))
    assert changed()
    (folder / "1" / "sub").mkdir()
    (folder / "1" / "sub" / "weights").write_bytes(b"")
    assert changed()
    (folder / "config.pbtxt").write_text("max_batch_size: 3")
    assert changed()
    (folder / "notes.txt").write_text("nothing that a version is made of")
    assert not changed()


def test_a_change_of_one_version_leaves_the_others_alone(root: Path, write: WriteModel) -> None:
    folder = write("m", "1", "2", config="version_policy { all { } }")
    before = entry_of(root, "m").specs
    (folder / "2" / "model.onnx").write_bytes(b"other")
    after = entry_of(root, "m").specs
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_two_scans_tell_what_was_added_modified_and_removed(root: Path, write: WriteModel) -> None:
    for name in ("same", "touched", "gone", "breaks", "heals"):
        write(name)
    (root / "heals" / "config.pbtxt").write_text("?")
    repository = ModelRepository([root])
    old = repository.scan()
    write("new")
    (root / "touched" / "1" / "model.onnx").write_bytes(b"longer model")
    (root / "gone").rename(root / ".gone")
    (root / "breaks" / "config.pbtxt").write_text("?")
    (root / "heals" / "config.pbtxt").write_text("")
    found = changes(old, repository.scan())
    assert found.added == ("new",)
    assert found.modified == ("breaks", "heals", "touched")
    assert found.removed == ("gone",)
    assert changes(old, old).modified == ()


def test_a_configuration_of_the_caller_takes_the_place_of_the_file_s(root: Path, write: WriteModel) -> None:
    folder = write("m", config="?")
    entry = read_entry(folder, [root], gpus=False, config=ModelConfig(max_batch_size=7))
    assert entry.config.max_batch_size == 7
