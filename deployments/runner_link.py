"""Control's line to one runner deployment: it tells all replicas at once and knows which of them live."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from trygon.deployments.messages import Desired, ReplicaReport

logger = logging.getLogger(__name__)

REPLY_S = 5.0
"""Longest wait for the replies of one round."""

SILENCE_S = 30.0
"""How long a replica that neither answers nor is known to be dead is believed in: importing a runtime can hold its
interpreter for seconds, and a replica that is just starting takes no calls yet."""


class RunnerLink:
    """One runner deployment as control sees it. `handle` is its deployment handle."""

    def __init__(self, name: str, handle: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._handle = handle
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._members: frozenset[str] = frozenset()
        self._wake: asyncio.Task[None] | None = None

    @property
    def served(self) -> bool:
        """Whether a replica takes calls."""
        return bool(self._members)

    def heard(self, replica: str) -> None:
        """Note that a replica reported by itself."""
        self._heard[replica] = self._clock()

    def living(self) -> frozenset[str]:
        """Return the replicas that live, as far as is known."""
        return frozenset(self._heard)

    async def tell(self, desired: Desired) -> list[ReplicaReport]:
        """Tell every replica what is desired, and return the reports of those that answered."""
        return await self._call("apply", desired)

    async def ask(self) -> list[ReplicaReport]:
        """Return the reports of all replicas that answer."""
        return await self._call("report")

    def wake(self) -> None:
        """Ask for a replica where there is none: a waiting call makes Serve's autoscaler start one."""
        if self._wake is None or self._wake.done():
            self._wake = asyncio.create_task(self._call_one())

    async def _call(self, method: str, *arguments: Desired) -> list[ReplicaReport]:
        replies, complete = await self._broadcast(method, *arguments)
        now = self._clock()
        answered = frozenset(report.replica for report in replies)
        self._heard.update(dict.fromkeys(answered, now))
        for replica, when in list(self._heard.items()):
            dead = complete and replica in self._members and replica not in answered
            if dead or now - when > SILENCE_S:
                del self._heard[replica]
        if complete:
            self._members = answered
        return replies

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
