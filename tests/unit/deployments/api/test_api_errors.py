"""Errors on the wire."""

import logging
from datetime import UTC, datetime
from urllib.parse import quote

import grpc
import orjson
import pytest

from trygon.deployments.api.errors import (
    GRPC_STATUS,
    MAX_DETAILS_BYTES,
    MAX_MESSAGE_LENGTH,
    error_body,
    public_error,
    status_details,
)
from trygon.errors import ErrorCode, InferenceError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_body_has_all_fields_and_v2_has_tritons_key_too() -> None:
    error = InferenceError(ErrorCode.RUNNER_QUEUE_FULL, "Exceeds maximum queue size", model="m")
    expected = {
        "errorCode": "RUNNER_QUEUE_FULL",
        "message": "Exceeds maximum queue size",
        "httpStatus": 503,
        "timestamp": "2026-01-31T12:00:00.000+00:00",
        "requestId": "r",
        "context": {"model": "m"},
        "documentationUrl": "docs/errors.md#runner_queue_full",
        "retryable": True,
    }
    body = error_body(error, request_id="r", timestamp=NOON, triton=False)
    assert orjson.loads(body) == expected
    body = error_body(error, request_id="r", timestamp=NOON, triton=True)
    assert orjson.loads(body) == {"error": "Exceeds maximum queue size", **expected}


def test_hostile_context_and_messages_become_bounded_json() -> None:
    error = InferenceError(
        ErrorCode.SYSTEM_INTERNAL,
        "x" * 10**6,
        big=2**70,
        nan=float("nan"),
        number=1.5,
        nothing=None,
        flag=True,
        many=[2**70] * 1000,
        nested={"key": ("a", b"b")},
        code=ErrorCode.SYSTEM_INTERNAL,
    )
    body = orjson.loads(error_body(error, request_id="r", timestamp=NOON, triton=True))
    assert len(body["message"]) == MAX_MESSAGE_LENGTH
    context = body["context"]
    assert (context["big"], context["nan"], context["number"]) == (str(2**70), "nan", 1.5)
    assert (context["nothing"], context["flag"], context["nested"]) == (None, True, {"key": ["a", "b'b'"]})
    assert len(context["many"]) < 1000


def test_every_code_has_a_grpc_status_that_is_not_ok() -> None:
    assert set(GRPC_STATUS) == set(ErrorCode)
    assert grpc.StatusCode.OK not in GRPC_STATUS.values()


def test_what_is_retryable_over_http_is_not_a_bad_argument_over_grpc() -> None:
    final = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
    assert not [code for code in ErrorCode if code.retryable and GRPC_STATUS[code] in final]


def test_the_status_text_is_https_message() -> None:
    assert status_details(InferenceError(ErrorCode.MODEL_NOT_FOUND, "größe")) == "größe"


@pytest.mark.parametrize("character", ["a", "ä", "€", "\N{SNAKE}", "\n"])
def test_the_status_text_fits_into_trailers(character: str) -> None:
    text = status_details(InferenceError(ErrorCode.MODEL_NOT_FOUND, character * 10_000))
    assert len(quote(text)) <= MAX_DETAILS_BYTES
    assert text.endswith("…")


def test_text_that_is_no_unicode_does_not_break_the_body() -> None:
    error = InferenceError(ErrorCode.RUNNER_EXECUTION_FAILED, "reason \udcff", reason="\udcff")
    body = orjson.loads(error_body(error, request_id="r", timestamp=NOON, triton=True))
    assert (body["message"], body["context"]) == ("reason ?", {"reason": "?"})
    assert status_details(error) == "reason ?"


def test_only_the_unforeseen_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    known = InferenceError(ErrorCode.MODEL_NOT_FOUND, "no")
    assert public_error(known, "r") is known
    assert not caplog.records
    assert public_error(KeyError("secret"), "r").code is ErrorCode.SYSTEM_INTERNAL
    assert "secret" in caplog.text
