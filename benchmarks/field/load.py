"""The HTTP load generator: keep-alive connections on bare sockets and epoll, requests as ready-made bytes.

One thread, no event loop framework: what it costs itself would be taken from the servers, which share the cores.
Closed loop: each connection sends again as soon as its answer is there. Open loop: requests arrive by a Poisson
process, and latency counts from the arrival, also while all connections are busy (no coordinated omission).
"""

import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from field.measurement import Measurement
from field.window import DRAIN_S, SILENCE_S, Timing, Window

Check = Callable[[int, bytes, bytes], str]
"""(row, head, body) → what is wrong with the answer, or nothing."""

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED: Final = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
_SMALL_BYTES: Final = 1 << 16
_LARGE_BYTES: Final = 1 << 20
"""recv allocates what it is asked for: 1 MiB for each small answer cost as much as all the rest."""
_SAMPLE: Final = 64
"""One answer of so many is checked in full; of all, status and length."""
_CONNECT_TIMEOUT_S: Final = 5.0


class Connection:
    """One keep-alive connection with at most one request in flight."""

    __slots__ = ("_parts", "_received", "_wanted", "busy", "head", "pending", "row", "sent_s", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _CONNECT_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.pending: memoryview | None = None
        self.busy = False
        self.row = 0
        self.sent_s = 0.0
        self.head = b""
        self._parts: list[bytes] = []
        self._received = 0
        self._wanted = -1

    def send(self, request: bytes) -> bool:
        """Start a request; False while some of it does not fit into the socket (see `flush`)."""
        self.busy = True
        self.head = b""
        self._parts.clear()
        self._received = 0
        self._wanted = -1
        sent = self.socket.send(request)
        if sent == len(request):
            return True
        self.pending = memoryview(request)[sent:]
        return False

    def flush(self) -> bool:
        """Send more of the request; True when all of it is sent."""
        if self.pending is not None:
            self.pending = self.pending[self.socket.send(self.pending) :] or None
        return self.pending is None

    def receive(self) -> bytes | None:
        """Read what is there; the whole body when it is complete.

        Raises: ConnectionError when the server has closed the connection, ValueError for what is not HTTP.
        """
        data = self.socket.recv(_LARGE_BYTES if self._wanted > _SMALL_BYTES else _SMALL_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        if not self.head:
            if self._parts:
                data = b"".join((*self._parts, data))
                self._parts.clear()
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._parts.append(data)
                return None
            self.head = data[: end + 2]
            length = _LENGTH.search(self.head)
            if length is None and not _CHUNKED.search(self.head):
                raise ValueError("an answer without a length")
            self._wanted = int(length[1]) if length else -1
            data = data[end + 4 :]
        self._received += len(data)
        if self._received == self._wanted and not self._parts:
            return data
        self._parts.append(data)
        if self._received == self._wanted:
            return b"".join(self._parts)
        if self._wanted < 0 and data.endswith(b"0\r\n\r\n"):
            return _unchunked(b"".join(self._parts))
        return None


class HttpLoad:
    """Load on one port. `requests` holds a ready-made request for each row."""

    def __init__(self, port: int, requests: Sequence[bytes], check: Check, pids: Sequence[int]) -> None:
        self._port = port
        self._requests = requests
        self._check = check
        self._pids = pids
        self._lengths: dict[int, int] = {}
        self._answers = 0

    def closed_loop(self, connections: int, timing: Timing) -> Measurement:
        """Keep `connections` requests in flight."""
        poller = select.epoll()
        window = Window(timing, self._pids)
        live: dict[int, Connection] = {}
        try:
            for index in range(connections):
                self._start(self._connect(poller, live, index), poller)
            while window.open():
                for connection in self._finished(poller, live, window, SILENCE_S):
                    self._start(connection, poller)
            self._drain(poller, live, window)
        except OSError as error:
            window.error(f"{type(error).__name__}: {error}")
        finally:
            _close(poller, live)
        return window.result()

    def open_loop(self, rate: float, connections: int, timing: Timing) -> Measurement:
        """Send `rate` requests per second at random times over at most `connections` connections."""
        poller = select.epoll()
        window = Window(timing, self._pids)
        live: dict[int, Connection] = {}
        arrivals = poisson(rate, time.perf_counter())
        waiting: deque[float] = deque()
        next_s = next(arrivals)
        try:
            idle = [self._connect(poller, live, index) for index in range(connections)]
            while window.open():
                now = time.perf_counter()
                while next_s <= now:
                    waiting.append(next_s)
                    next_s = next(arrivals)
                while waiting and idle:
                    self._start(idle.pop(), poller, waiting.popleft())
                # epoll counts in ms; select wakes within microseconds of the next arrival.
                if select.select([poller], [], [], max(next_s - time.perf_counter(), 0))[0]:
                    idle += self._finished(poller, live, window, 0)
            self._drain(poller, live, window)
        except OSError as error:
            window.error(f"{type(error).__name__}: {error}")
        finally:
            _close(poller, live)
        return window.result()

    def _drain(self, poller: select.epoll, live: dict[int, Connection], window: Window) -> None:
        """Wait for the answers that are still out."""
        deadline = time.perf_counter() + DRAIN_S
        while any(connection.busy for connection in live.values()) and time.perf_counter() < deadline:
            for _ in self._finished(poller, live, window, 0.5):
                pass

    def _connect(self, poller: select.epoll, live: dict[int, Connection], index: int) -> Connection:
        connection = Connection(self._port)
        connection.row = index % len(self._requests)
        live[connection.socket.fileno()] = connection
        poller.register(connection.socket.fileno(), select.EPOLLIN)
        return connection

    def _start(self, connection: Connection, poller: select.epoll, arrived_s: float = 0) -> None:
        connection.sent_s = arrived_s or time.perf_counter()
        if not connection.send(self._requests[connection.row]):
            poller.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _finished(
        self, poller: select.epoll, live: dict[int, Connection], window: Window, timeout_s: float
    ) -> Iterator[Connection]:
        """Yield the connections whose answers are complete now."""
        events = poller.poll(timeout_s)
        if not events and timeout_s == SILENCE_S:
            window.error(f"no answer for {timeout_s:.0f} s")
            window.end()
        for descriptor, event in events:
            connection = live[descriptor]
            if event & select.EPOLLOUT and connection.flush():
                poller.modify(descriptor, select.EPOLLIN)
            if not event & ~select.EPOLLOUT:
                continue
            try:
                body = connection.receive()
            except BlockingIOError:
                continue
            except (OSError, ValueError) as error:
                window.error(f"{type(error).__name__}: {error}")
                del live[descriptor]
                connection.socket.close()
                yield self._connect(poller, live, connection.row)
                continue
            if body is not None:
                now = time.perf_counter()
                connection.busy = False
                if fault := self._fault(connection, body):
                    window.error(fault)
                else:
                    window.answered(now, connection.sent_s)
                yield connection

    def _fault(self, connection: Connection, body: bytes) -> str:
        """Return what is wrong with an answer: status, length, and values of the first ones and of samples."""
        if connection.head[9:12] != b"200":
            return f"{connection.head[:15].decode(errors='replace')}: {body[:200].decode(errors='replace')}"
        self._answers += 1
        if self._answers % _SAMPLE and self._lengths.get(connection.row) == len(body):
            return ""
        fault = self._check(connection.row, connection.head, body)
        if not fault:
            self._lengths[connection.row] = len(body)
        return fault


def poisson(rate: float, start_s: float) -> Iterator[float]:
    """Yield the times of a Poisson process, always the same gaps."""
    random = np.random.default_rng(11)
    now = start_s
    while True:
        for gap in random.exponential(1 / rate, 4096):
            now += float(gap)
            yield now


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            return b"".join(parts)
        parts.append(body[:length])
        body = body[length + 2 :]


def _close(poller: select.epoll, live: dict[int, Connection]) -> None:
    poller.close()
    for connection in live.values():
        connection.socket.close()
