"""A stream of requests answered concurrently: one task reads, answers leave as they are ready."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


async def answer_concurrently(
    requests: AsyncIterator[Asked], answer: Callable[[Asked], Awaitable[Answer]], *, limit: int
) -> AsyncIterator[Answer]:
    """Yield the answer to each request, in the order in which they become ready.

    At most `limit` requests are between their arrival and the moment their answer was taken, so a caller that sends
    without reading is held up by the transport's flow control. Ending the iteration early cancels what is under way.
    An exception of `answer` or of the stream ends the iteration.
    """
    finished: asyncio.Queue[tuple[Answer] | None] = asyncio.Queue()
    slots = asyncio.Semaphore(limit)

    async def work(request: Asked) -> None:
        finished.put_nowait((await answer(request),))

    async def read() -> None:
        try:
            async with asyncio.TaskGroup() as under_way:
                async for request in requests:
                    await slots.acquire()
                    under_way.create_task(work(request))
        finally:
            finished.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while item := await finished.get():
            yield item[0]
            slots.release()
        await reader
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
