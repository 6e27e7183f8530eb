"""The rule that says when a start is over."""

import pytest

from trygon.deployments.readiness import STILL_S, Readiness, Verdict
from trygon.deployments.repository_client import IndexRow
from trygon.errors import ErrorCode, InferenceError

READY = IndexRow("a", "1", "READY", "")
LOADING = IndexRow("b", "1", "LOADING", "")
BAD = IndexRow("c", "1", "UNAVAILABLE", "no model")


class Server:
    """A server whose state the test sets; `rows` is None while nothing answers."""

    def __init__(self) -> None:
        self.is_ready = False
        self.rows: list[IndexRow] | None = None
        self.grpc = True
        self.now = 0.0

    def ready(self) -> bool:
        return self.is_ready

    def index(self) -> list[IndexRow]:
        if self.rows is None:
            raise InferenceError(ErrorCode.SYSTEM_NOT_READY, "nothing answers")
        return self.rows


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def readiness(server: Server) -> Readiness:
    return Readiness(server, lambda: server.grpc, clock=lambda: server.now)


def test_a_server_that_does_not_answer_is_waited_for(readiness: Readiness) -> None:
    assert readiness.look() is Verdict.WAIT


def test_a_ready_server_has_settled(server: Server, readiness: Readiness) -> None:
    server.is_ready, server.rows = True, [READY]
    assert readiness.look() is Verdict.SETTLED
    assert readiness.rows == [READY]


def test_grpc_must_answer_too(server: Server, readiness: Readiness) -> None:
    server.is_ready, server.rows, server.grpc = True, [READY], False
    assert readiness.look() is Verdict.WAIT


def test_a_bad_model_alone_is_not_waited_for_once_nothing_moves(server: Server, readiness: Readiness) -> None:
    server.rows = [READY, BAD]
    assert readiness.look() is Verdict.WAIT
    server.now += STILL_S
    assert readiness.look() is Verdict.SETTLED


def test_a_model_that_is_loading_is_waited_for_beside_a_bad_one(server: Server, readiness: Readiness) -> None:
    server.rows = [READY, LOADING, BAD]
    readiness.look()
    server.now += 10 * STILL_S
    assert readiness.look() is Verdict.WAIT


def test_a_model_that_nobody_asked_for_is_no_failure(server: Server, readiness: Readiness) -> None:
    server.rows = [IndexRow("d", "1", "UNAVAILABLE", "unloaded")]
    readiness.look()
    server.now += 10 * STILL_S
    assert readiness.look() is Verdict.WAIT


def test_a_change_starts_the_stillness_anew(server: Server, readiness: Readiness) -> None:
    server.rows = [BAD]
    readiness.look()
    server.now += STILL_S
    server.rows = [READY, BAD]
    assert readiness.look() is Verdict.WAIT


def test_a_server_without_models_that_is_not_ready_is_waited_for(server: Server, readiness: Readiness) -> None:
    server.rows = []
    server.now += 10 * STILL_S
    assert readiness.look() is Verdict.WAIT
