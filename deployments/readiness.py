"""When a start is over: the rule that reads health and repository index, and says whether the models have settled."""

import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from trygon.deployments.repository_client import IndexRow
from trygon.errors import InferenceError

STILL_S = 1.5  # longer than the server takes from one model to the next


class Verdict(Enum):
    """Whether to go on waiting."""

    WAIT = auto()
    SETTLED = auto()


class Probe(Protocol):
    """What the rule asks of a server."""

    def ready(self) -> bool:
        """Whether every model that should be loaded has a live replica."""
        ...

    def index(self) -> list[IndexRow]:
        """Return every model version that the server knows of."""
        ...


class Readiness:
    """Looks at a server that starts.

    Settled means that it is ready over HTTP and gRPC; or, because a bad model keeps it from ever being ready, that some
    model has failed and nothing has moved for `STILL_S` seconds. `rows` are the index as it was seen last.
    """

    def __init__(
        self, probe: Probe, grpc_is_live: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe = probe
        self._grpc_is_live = grpc_is_live
        self._clock = clock
        self._changed = clock()
        self.rows: list[IndexRow] = []

    def look(self) -> Verdict:
        """Ask the server once."""
        ready = self._probe.ready()
        try:
            rows = self._probe.index()
        except InferenceError:  # not there yet, or busy: the next look tells
            return Verdict.WAIT
        if rows != self.rows:
            self.rows = rows
            self._changed = self._clock()
        if not (ready or self._is_stuck()):
            return Verdict.WAIT
        return Verdict.SETTLED if self._grpc_is_live() else Verdict.WAIT

    def _is_stuck(self) -> bool:
        return (
            any(row.has_failed for row in self.rows)
            and not any(row.is_moving for row in self.rows)
            and self._clock() - self._changed >= STILL_S
        )
