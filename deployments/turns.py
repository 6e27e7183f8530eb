"""Turns by name: whoever changes a model waits until nobody else does."""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator


class Turns:
    """One lock for each name, for as long as somebody holds it or waits for it: callers may name anything."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._locks)

    @contextlib.asynccontextmanager
    async def take(self, name: str, *, timeout_s: float) -> AsyncIterator[None]:
        """Wait for the turn, in the order of asking, and hold it.

        Raises: TimeoutError when those before do not end within `timeout_s`.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with asyncio.timeout(timeout_s):
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()
