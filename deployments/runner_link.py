"""Control's line to one runner deployment: it tells all replicas at once and knows which of them live."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from trygon.deployments.calls import detach
from trygon.deployments.messages import Desired, ReplicaReport

logger = logging.getLogger(__name__)

REPLY_S = 5.0
"""Longest wait for the replies of one round."""

SILENCE_S = 30.0
"""How long a replica that neither answers nor is known to be dead is believed in: importing a runtime can hold its
interpreter for seconds, and a replica that is just starting takes no calls yet."""

ASK_ROUNDS = 3
"""How often replicas that are slow to answer are asked what they have, before control goes on without them."""

DEPARTED = 256
"""Replicas that are remembered as gone: a stopping one may still report while it ends its last requests."""


class RunnerLink:
    """One runner deployment as control sees it. `handle` is its deployment handle."""

    def __init__(self, name: str, handle: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._handle = handle
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._members: frozenset[str] = frozenset()
        self._departed: dict[str, None] = {}
        self._round = 0
        self._last_complete = 0
        self._wake: asyncio.Task[None] | None = None

    @property
    def starting(self) -> bool:
        """Whether a replica was heard that has not answered a call to all yet."""
        return not self._heard.keys() <= self._members

    def heard(self, replica: str) -> bool:
        """Note that a replica reported by itself; return whether it counts, which one that has left does not."""
        if replica in self._departed:
            return False
        self._heard[replica] = self._clock()
        return True

    def living(self) -> frozenset[str]:
        """Return the replicas that live, as far as is known."""
        return frozenset(self._heard)

    async def tell(self, desired: Desired) -> list[ReplicaReport]:
        """Tell every replica what is desired, and return the reports of those that answered."""
        return await self._call("apply", desired)

    async def ask(self) -> list[ReplicaReport]:
        """Return the reports of all replicas that answer; ask again where some were slow."""
        for _ in range(ASK_ROUNDS - 1):
            replies, complete = await self._call_all("report")
            if complete:
                return replies
        return await self._call("report")

    def wake(self) -> None:
        """Ask for a replica where there is none: a waiting call makes Serve's autoscaler start one."""
        if self._wake is None or self._wake.done():
            self._wake = detach(self._call_one())

    async def _call(self, method: str, *arguments: Desired) -> list[ReplicaReport]:
        replies, _ = await self._call_all(method, *arguments)
        return replies

    async def _call_all(self, method: str, *arguments: Desired) -> tuple[list[ReplicaReport], bool]:
        """Call a method of all replicas; return the reports, and whether every other replica is known to be gone."""
        self._round += 1
        number = self._round
        replies, complete = await self._broadcast(method, *arguments)
        # Rounds overlap, and one that began earlier knows less of who lives.
        if number > self._last_complete:
            self._note(frozenset(report.replica for report in replies), complete=complete)
            self._last_complete = number if complete else self._last_complete
        return replies, complete

    def _note(self, answered: frozenset[str], *, complete: bool) -> None:
        now = self._clock()
        self._heard.update(dict.fromkeys(answered, now))
        for replica in answered:
            self._departed.pop(replica, None)
        if complete:
            for replica in self._members - answered:
                self._heard.pop(replica, None)
                self._departed[replica] = None
            for replica in list(self._departed)[:-DEPARTED]:
                del self._departed[replica]
            self._members = answered
        self._heard = {replica: when for replica, when in self._heard.items() if now - when <= SILENCE_S}

    async def _broadcast(self, method: str, *arguments: Desired) -> tuple[list[ReplicaReport], bool]:
        """Return the replies, and whether every replica that did not answer is known to be gone."""
        try:
            response = self._handle.broadcast(method, *arguments)
            results = await response.results_async(timeout_s=REPLY_S, return_exceptions=True)
        except TimeoutError:
            return [], False
        except Exception as error:  # noqa: BLE001 - Serve raises when there is no replica at all
            logger.debug("no replica of %s: %s", self._name, error)
            return [], True
        for result in results:
            if not isinstance(result, ReplicaReport):
                logger.warning("a replica of %s did not answer: %s", self._name, result)
        return [result for result in results if isinstance(result, ReplicaReport)], True

    async def _call_one(self) -> None:
        try:
            await self._handle.report.remote()
        except Exception as error:  # noqa: BLE001 - the next round wakes again
            logger.warning("%s could not be woken: %s", self._name, error)
