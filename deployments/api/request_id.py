"""Request ids: the caller's own where it is sane, else a new one whose order is the order of time."""

import os
import time
import uuid
from typing import Final

REQUEST_ID_HEADER: Final = "x-request-id"
MAX_REQUEST_ID_LENGTH: Final = 128


def new_request_id() -> str:
    """Return a UUID of version 7: milliseconds since the epoch, then 74 random bits. Source: RFC 9562, section 5.7."""
    random = int.from_bytes(os.urandom(10), "big")
    version_and_head = 0x7000 | (random >> 64 & 0x0FFF)
    variant_and_tail = 1 << 63 | (random & (1 << 62) - 1)
    return str(uuid.UUID(int=time.time_ns() // 1_000_000 << 80 | version_and_head << 64 | variant_and_tail))


def is_request_id(given: str) -> bool:
    """Whether the caller's id may be echoed and logged: 1 to 128 visible ASCII characters."""
    return 0 < len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.isprintable() and " " not in given


def chosen_request_id(given: str) -> str:
    """Return the caller's id where it is sane, else a new one."""
    return given if is_request_id(given) else new_request_id()
