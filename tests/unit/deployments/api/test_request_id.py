"""Request ids."""

import uuid

import pytest

from trygon.deployments.api.request_id import is_request_id, new_request_id


def test_new_ids_are_version_7_uuids_that_differ() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {uuid.UUID(text).version for text in ids} == {7}
    assert {uuid.UUID(text).variant for text in ids} == {uuid.RFC_4122}


def test_ids_of_different_milliseconds_sort_by_time() -> None:
    ids = [new_request_id()[:13] for _ in range(1000)]
    assert ids == sorted(ids)


@pytest.mark.parametrize("given", ["a", "a" * 128, "!~", "01980a3c-7b1e"])
def test_visible_ascii_is_accepted(given: str) -> None:
    assert is_request_id(given)


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\n", "a\x7f", "ä", "\t"])
def test_anything_else_is_not(given: str) -> None:
    assert not is_request_id(given)
