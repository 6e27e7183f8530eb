"""Waiting for something that changes to become as one wants it."""

import asyncio
import contextlib
from collections.abc import Callable


class Changes:
    """What changes is told by its revision; those who wait look again at each new one."""

    def __init__(self) -> None:
        self._revision = 0
        self._changed = asyncio.Event()

    def publish(self, revision: int) -> None:
        """Let those who wait look again, if the revision is new."""
        if revision != self._revision:
            self._revision = revision
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def until(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until a change makes `condition` true; return whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._changed.wait()
        return condition()
