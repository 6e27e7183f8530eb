"""Version policy: which folders are versions, and which versions are wanted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.models.config import parse_config
from trygon.models.policy import absent_versions, parse_version_folder, wanted_versions
from trygon.models.proto.model_config_pb2 import ModelVersionPolicy


def policy(text: str) -> ModelVersionPolicy:
    return parse_config(f"version_policy {{ {text} }}", source="s").version_policy


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (10,)),
        ("latest { }", (10,)),
        ("latest { num_versions: 2 }", (3, 10)),
        ("latest { num_versions: 9 }", (1, 3, 10)),
        ("all { }", (1, 3, 10)),
        ("specific { versions: [ 3, 1, 7 ] }", (1, 3)),
        ("specific { }", ()),
    ],
)
def test_the_policy_chooses_among_the_versions(text: str, wanted: tuple[int, ...]) -> None:
    assert wanted_versions(policy(text), [10, 1, 3]) == wanted


def test_versions_that_are_named_and_not_there_are_told() -> None:
    assert absent_versions(policy("specific { versions: [ 9, 7, 1 ] }"), [1]) == (7, 9)
    assert absent_versions(policy("all { }"), [1]) == ()


@given(st.integers(1, 2**63 - 1))
def test_positive_numbers_are_versions(version: int) -> None:
    assert parse_version_folder(str(version)) == version


@pytest.mark.parametrize("name", ["0", "01", "-1", "1.0", "v1", "1 ", "", "\u0661", "²", str(2**63), "9" * 5000, "1\n"])
def test_other_folders_are_none(name: str) -> None:
    assert parse_version_folder(name) is None
