"""The data directory: one server at a time, logs that outlive it, and a runtime directory that is ours alone."""

import os
from pathlib import Path

import pytest

from trygon.deployments.data_directory import DataDirectory
from trygon.errors import ErrorCode, InferenceError


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data", runtime_root=tmp_path)


def test_a_second_server_is_refused_and_told_who_the_first_is(directory: DataDirectory) -> None:
    with directory, pytest.raises(InferenceError, match=f"pid {os.getpid()}") as caught, DataDirectory(directory.path):
        pass
    assert caught.value.code is ErrorCode.REQUEST_CONFLICT


def test_the_lock_is_free_again_afterwards(directory: DataDirectory) -> None:
    with directory:
        pass
    with directory as again:
        assert again.logs.is_dir()


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InferenceError) as caught, DataDirectory(tmp_path / "file" / "data"):
        pass
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE


def test_leaving_without_having_entered_does_nothing(directory: DataDirectory) -> None:
    directory.__exit__(None, None, None)


def test_each_data_directory_has_a_runtime_directory_of_its_own(tmp_path: Path) -> None:
    assert DataDirectory(tmp_path / "a").runtime_dir != DataDirectory(tmp_path / "b").runtime_dir
    assert DataDirectory(tmp_path / "a").runtime_dir == DataDirectory(tmp_path / "b" / ".." / "a").runtime_dir


def test_the_runtime_directory_is_made_empty_and_private(directory: DataDirectory) -> None:
    directory.runtime_dir.mkdir()
    (directory.runtime_dir / "left").touch()
    directory.make_runtime_dir()
    assert list(directory.runtime_dir.iterdir()) == []
    assert directory.runtime_dir.stat().st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_refused_and_not_followed(directory: DataDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    directory.runtime_dir.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InferenceError) as caught:
        directory.make_runtime_dir()
    assert caught.value.code is ErrorCode.SYSTEM_START_FAILED
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_a_runtime_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InferenceError) as caught:
        DataDirectory(tmp_path, runtime_root=tmp_path / "absent").make_runtime_dir()
    assert caught.value.code is ErrorCode.SYSTEM_START_FAILED


def test_the_newest_logs_of_ray_are_kept_when_the_runtime_directory_goes(directory: DataDirectory) -> None:
    for day in range(1, 6):
        logs = directory.runtime_dir / "ray" / f"session_2026-01-0{day}" / "logs"
        logs.mkdir(parents=True)
        (logs / "raylet.out").touch()
    (directory.runtime_dir / "ray" / "session_2026-01-06").mkdir()
    with directory:
        directory.clear_runtime_dir()
    assert not directory.runtime_dir.exists()
    assert sorted(path.name for path in directory.logs.iterdir()) == [f"session_2026-01-0{day}" for day in (3, 4, 5)]
    assert (directory.logs / "session_2026-01-05" / "raylet.out").exists()


def test_nothing_to_clear_is_no_fault(directory: DataDirectory) -> None:
    directory.clear_runtime_dir()
