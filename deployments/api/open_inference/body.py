"""HTTP bodies: read one within its limits, however it is compressed, and compress one when the caller asks."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Final

from starlette.requests import Request
from starlette.types import Receive

from trygon.deployments.api.open_inference.blocking import BLOCKING_BYTES, run_sized
from trygon.errors import ErrorCode, InferenceError

MIN_COMPRESSED_BYTES: Final = 1024
"""Smaller bodies are sent as they are: they fit in a packet or two."""


class Encoding(StrEnum):
    """The content codings that Triton's clients send and understand. Source: RFC 9110, section 8.4.1."""

    GZIP = "gzip"
    DEFLATE = "deflate"


_ENCODINGS: Final = {str(encoding): encoding for encoding in Encoding}
# Deflate means the zlib format (RFC 9110, section 8.4.1.2); 16 more window bits stand for gzip's wrapper.
_WINDOW_BITS: Final = {Encoding.GZIP: 16 + zlib.MAX_WBITS, Encoding.DEFLATE: zlib.MAX_WBITS}


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the request's body, decompressed; neither form may be longer than `limit_bytes`.

    Raises: REQUEST_BODY_TOO_LARGE, REQUEST_ENCODING_UNSUPPORTED, REQUEST_ENCODING_INVALID, REQUEST_CANCELLED.
    """
    declared = request.headers.get("content-length", "").encode("latin-1")
    _check_declared(declared, limit_bytes)
    encoding = _content_encoding(request)
    if encoding is None:
        return await _whole(request.receive, limit_bytes)
    chunks = _capped(request.receive, limit_bytes)
    pieces, size = [], 0
    async for piece in _decompressed(chunks, encoding):
        size += len(piece)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def read_plain_body(receive: Receive, declared: bytes, limit_bytes: int) -> bytes:
    """Return the body of a request that is not compressed; `declared` is its Content-Length, if it has one.

    Raises: REQUEST_BODY_TOO_LARGE, REQUEST_CANCELLED.
    """
    _check_declared(declared, limit_bytes)
    return await _whole(receive, limit_bytes)


def accepted_encoding(accept_encoding: str | None) -> Encoding | None:
    """Return the coding to answer with: the first that the header names and does not weigh 0, if any."""
    for item in (accept_encoding or "").lower().split(","):
        name, _, weight = item.partition(";")
        refused = weight.replace(" ", "").rstrip("0") in {"q=", "q=0."}
        encoding = _ENCODINGS.get(name.strip())
        if encoding and not refused:
            return encoding
    return None


async def compress(body: bytes, encoding: Encoding) -> bytes | None:
    """Return the body compressed, or None where that does not pay."""
    if len(body) < MIN_COMPRESSED_BYTES:
        return None
    compressed = await run_sized(len(body), _compress, body, encoding)
    return compressed if len(compressed) < len(body) else None


def _compress(body: bytes, encoding: Encoding) -> bytes:
    # Level 1: tensors of floats hardly shrink further at six times the cost.
    return zlib.compress(body, level=1, wbits=_WINDOW_BITS[encoding])


def _content_encoding(request: Request) -> Encoding | None:
    given = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if given in {"", "identity"}:
        return None
    encoding = _ENCODINGS.get(given)
    if encoding is None:
        raise InferenceError(
            ErrorCode.REQUEST_ENCODING_UNSUPPORTED, f"Content-Encoding '{given}' is not supported", encoding=given
        )
    return encoding


def _check_declared(declared: bytes, limit_bytes: int) -> None:
    """Refuse a Content-Length beyond the limit; one that is no number says nothing."""
    # Eighteen digits are more than any body has bytes, and int() refuses thousands of them.
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit_bytes):
        raise _too_large(limit_bytes)


async def _whole(receive: Receive, limit_bytes: int) -> bytes:
    chunks = [chunk async for chunk in _capped(receive, limit_bytes)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _capped(receive: Receive, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body's chunks as they arrive, up to the limit."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InferenceError(ErrorCode.REQUEST_CANCELLED, "the caller hung up while sending its body")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        yield chunk
        more = message.get("more_body", False)


async def _decompressed(chunks: AsyncIterator[bytes], encoding: Encoding) -> AsyncIterator[bytes]:
    """Decompress at most BLOCKING_BYTES at a time, so that a bomb is found out before it goes off."""
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    async for chunk in chunks:
        pending, more = chunk, bool(chunk)
        while more:
            if stream.eof:
                raise _invalid(encoding, "bytes follow its end")
            try:
                piece = stream.decompress(pending, BLOCKING_BYTES)
            except zlib.error as error:
                raise _invalid(encoding, str(error)) from error
            yield piece
            pending = stream.unconsumed_tail or stream.unused_data
            more = bool(pending) or (len(piece) == BLOCKING_BYTES and not stream.eof)
            if more:
                await asyncio.sleep(0)
    if not stream.eof:
        raise _invalid(encoding, "it ends too early")


def _too_large(limit_bytes: int) -> InferenceError:
    return InferenceError(
        ErrorCode.REQUEST_BODY_TOO_LARGE, f"the body is larger than {limit_bytes} bytes", limitBytes=limit_bytes
    )


def _invalid(encoding: Encoding, reason: str) -> InferenceError:
    return InferenceError(
        ErrorCode.REQUEST_ENCODING_INVALID, f"the body is not valid {encoding}: {reason}", encoding=str(encoding)
    )
