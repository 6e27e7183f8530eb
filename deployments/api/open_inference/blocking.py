"""Work that grows with a request's size: done at once when small, in a thread when it would hold up the event loop."""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

BLOCKING_BYTES: Final = 1024 * 1024
"""Work on more bytes than this leaves the event loop, which also answers health checks, to others."""


async def run_sized(size_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `work(*args, **kwargs)`, run in a thread if it works on more than BLOCKING_BYTES."""
    if size_bytes > BLOCKING_BYTES:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)
