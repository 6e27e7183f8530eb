"""The error contract: codes that say enough, and errors that cross processes unharmed."""

import pickle
import re
from typing import Any

import pytest
from ray import cloudpickle

from trygon.errors import ErrorCode, ErrorInfo, InferenceError, _restore

CATEGORIES = {
    "REQUEST",
    "TENSOR",
    "AUTH",
    "TENANT",
    "QUOTA",
    "MODEL",
    "ROUTING",
    "RUNNER",
    "DEVICE",
    "STORAGE",
    "SYSTEM",
}


class QuotaError(InferenceError):
    """A subclass, as other packages may define one."""


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("kind", [InferenceError, QuotaError])
def test_an_error_survives_pickling(pickler: Any, kind: type[InferenceError]) -> None:
    error = kind(ErrorCode.TENSOR_SHAPE_MISMATCH, "wrong shape", tensor="x", expected=[-1, 64])
    restored = pickler.loads(pickler.dumps(error))
    assert type(restored) is kind
    assert restored.code is ErrorCode.TENSOR_SHAPE_MISMATCH
    assert restored.message == str(restored) == "wrong shape"
    assert restored.context == {"tensor": "x", "expected": [-1, 64]}


def test_context_may_have_any_name() -> None:
    error = InferenceError(ErrorCode.SYSTEM_INTERNAL, "text", code="c", message="m", self="s")
    assert pickle.loads(pickle.dumps(error)).context == {"code": "c", "message": "m", "self": "s"}  # noqa: S301 - our own bytes


def test_the_cause_stays_in_this_process() -> None:
    error = InferenceError(ErrorCode.SYSTEM_INTERNAL, "text")
    error.__cause__ = OSError("secret path")
    assert pickle.loads(pickle.dumps(error)).__cause__ is None  # noqa: S301 - our own bytes


def test_a_code_of_a_newer_server_becomes_an_internal_error() -> None:
    restored = _restore(InferenceError, "MODEL_FROM_THE_FUTURE", "text", {"a": 1})
    assert (restored.code, restored.message, restored.context) == (ErrorCode.SYSTEM_INTERNAL, "text", {"a": 1})


def test_there_are_more_than_sixty_codes() -> None:
    assert len(ErrorCode) > 60


def test_no_code_is_an_alias_of_another() -> None:
    # An enum would make two members with equal values one.
    assert len(ErrorCode.__members__) == len({code.value for code in ErrorCode})


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_a_code_belongs_to_a_category_and_says_what_to_do(code: ErrorCode) -> None:
    assert isinstance(code.value, ErrorInfo)
    assert code.name.partition("_")[0] in CATEGORIES
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code.name)
    assert 400 <= code.http_status <= 599
    assert code.help.endswith(".")
    assert "\n" not in code.help
    assert 10 < len(code.help) < 120
    assert code.documentation_url.endswith(f"#{code.name.lower()}")


def test_only_errors_that_pass_by_themselves_are_retryable() -> None:
    for code in ErrorCode:
        if code.retryable:
            assert code.http_status in {429, 503, 504, 507}, code.name
