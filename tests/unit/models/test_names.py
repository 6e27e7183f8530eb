"""Names: models and files stay in their folders."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.errors import ErrorCode, InferenceError
from trygon.models.names import check_name, existing_file, relative_path, shorten


@pytest.mark.parametrize("name", ["digits", "a", "_x", "resnet-50.v2", "A" * 255, "1"])
def test_plain_names_are_fine(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "a\\b",
        "../x",
        "a..b",
        "a b",
        "a\n",
        "é",
        "a\0",
        "A" * 256,
        "%2e",
        "\ud800",
    ],
)
def test_names_that_could_leave_the_repository_are_refused(name: str) -> None:
    with pytest.raises(InferenceError) as caught:
        check_name(name)
    assert caught.value.code is ErrorCode.MODEL_NAME_INVALID
    assert caught.value.message.encode()


@given(st.text())
def test_a_name_that_is_accepted_is_one_folder_below_the_root(name: str) -> None:
    try:
        check_name(name)
    except InferenceError:
        return
    assert (Path("/root") / name).resolve() == Path(f"/root/{name}")


@given(st.text(alphabet="./\\a1~\0é\ud800-", max_size=30))
def test_a_relative_path_that_is_accepted_stays_below_its_folder(text: str) -> None:
    try:
        path = relative_path(text)
    except InferenceError as error:
        assert error.message.encode()  # noqa: PT017 - refusal is one of two right answers
        return
    assert Path("/root", path).resolve().is_relative_to("/root")
    assert Path("/root", path).resolve() != Path("/root")


def test_relative_paths_keep_their_parts() -> None:
    assert relative_path("1/model.savedmodel/variables/variables.index") == PurePosixPath(
        "1/model.savedmodel/variables/variables.index"
    )


@pytest.mark.parametrize(
    "text", ["", "/etc/passwd", "../x", "1/../../x", "1//x", "1/", ".x", "1/.x", "a\\b", "a" * 256, "a/" * 20 + "a"]
)
def test_unsafe_paths_are_refused(text: str) -> None:
    with pytest.raises(InferenceError) as caught:
        relative_path(text)
    assert caught.value.code is ErrorCode.REQUEST_PARAMETER_INVALID


def test_an_existing_file_is_found_through_links_within_its_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.txt").write_text("a")
    (tmp_path / "labels.txt").symlink_to("data/labels.txt")
    assert existing_file(tmp_path, "labels.txt", field="f").read_text() == "a"


def test_files_outside_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to("../secret")
    (folder / "loop").symlink_to("loop")
    for name, code in {
        "link": ErrorCode.MODEL_CONFIG_INVALID,
        "../secret": ErrorCode.MODEL_CONFIG_INVALID,
        "loop": ErrorCode.MODEL_CONFIG_INVALID,
        "sub": ErrorCode.MODEL_FILE_MISSING,
        "none": ErrorCode.MODEL_FILE_MISSING,
    }.items():
        with pytest.raises(InferenceError) as caught:
            existing_file(folder, name, field="f")
        assert caught.value.code is code, name


def test_long_text_is_shortened_and_can_always_be_encoded() -> None:
    assert shorten("short") == "short"
    assert len(shorten("x" * 10_000_000)) < 200
    assert shorten("\ud800") == "?"
