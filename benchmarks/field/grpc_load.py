"""The gRPC load generator: HTTP/2 frames on bare sockets, requests as ready-made bytes.

A gRPC library costs more per call than the servers measured here; this client writes what the protocols ask for and
reads the frames that matter. It needs no HPACK decoder: a call that fails has no message, and one that succeeds has a
whole message, whose values are checked in samples. Sources: RFC 9113, and gRPC's "gRPC over HTTP2".
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from field.measurement import Measurement
from field.window import DRAIN_S, SILENCE_S, Timing, Window

Check = Callable[[int, bytes], str]
"""(row, message) → what is wrong with the answer, or nothing."""

SERVICE: Final = "/inference.GRPCInferenceService/"
UNARY: Final = "ModelInfer"
STREAM: Final = "ModelStreamInfer"
CALLS_PER_CONNECTION: Final = 8
"""Unary calls in flight on one connection: perf_analyzer shares one among about as many."""

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
_REFILL: Final = 1 << 30
_SAMPLE: Final = 64
_ID: Final = b"\x1a\x06q"
"""Tag and length of ModelInferResponse.id, and the first letter of ours."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(method: str, port: int) -> bytes:
    """Return the request headers of a call, as literals that leave the compression tables alone."""
    fields = (
        (":path", SERVICE + method),
        (":authority", f"127.0.0.1:{port}"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    block = b"\x83\x86"  # :method POST and :scheme http, of the static table
    for name, value in fields:
        block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def enveloped(message: bytes) -> bytes:
    """Return a message with gRPC's prefix: not compressed, length."""
    return struct.pack(">BI", 0, len(message)) + message


class GrpcConnection:
    """One HTTP/2 connection: sends within the peer's windows, and splits what comes into frames."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send_window = _FIRST_WINDOW
        self.stream_window = self.first_stream_window = _FIRST_WINDOW
        self._buffer = b""
        self._consumed = 0
        settings = struct.pack(">HIHI", 4, _LARGEST_WINDOW, 5, 2**24 - 1)
        grown = struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)
        self.socket.sendall(_PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, grown))

    def receive(self) -> list[tuple[int, int, int, bytes]]:
        """Read what is there; return (kind, flags, stream, payload) of DATA, HEADERS, RST_STREAM and GOAWAY frames.

        Raises: ConnectionError when the server has closed the connection.
        """
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed the connection")
        buffer = self._buffer + data if self._buffer else data
        place, end = 0, len(buffer)
        frames = []
        while end - place >= 9:
            length = int.from_bytes(buffer[place : place + 3])
            if end - place < 9 + length:
                break
            kind, flags = buffer[place + 3], buffer[place + 4]
            stream = int.from_bytes(buffer[place + 5 : place + 9])
            payload = buffer[place + 9 : place + 9 + length]
            place += 9 + length
            if kind == _DATA:
                self._consumed += length
                frames.append((kind, flags, stream, payload[1 : -payload[0] or None] if flags & _PADDED else payload))
            elif kind in {_HEADERS, _RST_STREAM, _GOAWAY}:
                frames.append((kind, flags, stream, payload))
            else:
                self._control(kind, flags, stream, payload)
        self._buffer = buffer[place:]
        if self._consumed > _REFILL:
            self.socket.sendall(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed)))
            self._consumed = 0
        return frames

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == 4:
                    self.stream_window += value - self.first_stream_window
                    self.first_stream_window = value
            self.socket.sendall(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            grown = int.from_bytes(payload)
            if stream:
                self.stream_window += grown
            else:
                self.send_window += grown


class UnaryCalls:
    """Calls of ModelInfer on one connection, each in a stream of its own."""

    def __init__(self, port: int, messages: Sequence[bytes], rows: Sequence[int], window: Window, check: Check) -> None:
        self.connection = GrpcConnection(port)
        self._messages = [enveloped(message) for message in messages]
        self._headers = header_block(UNARY, port)
        self._idle = list(rows)
        self._running: dict[int, tuple[int, float]] = {}
        self._answers: dict[int, bytes] = {}
        self._next = 1
        self._window = window
        self._check = check
        self._count = 0

    @property
    def running(self) -> bool:
        """Whether answers are still out."""
        return bool(self._running)

    def send(self) -> None:
        """Start as many calls as are idle and fit into the server's window."""
        out = []
        while self._idle and self.connection.send_window >= len(self._messages[self._idle[-1]]):
            row = self._idle.pop()
            stream, self._next = self._next, self._next + 2
            out.append(frame(_HEADERS, _END_HEADERS, stream, self._headers))
            out.append(frame(_DATA, _END_STREAM, stream, self._messages[row]))
            self.connection.send_window -= len(self._messages[row])
            self._running[stream] = (row, time.perf_counter())
        if out:
            self.connection.socket.sendall(b"".join(out))

    def receive(self) -> None:
        """Take the answers that are there."""
        for kind, flags, stream, payload in self.connection.receive():
            if kind == _GOAWAY:
                raise ConnectionError("the server said GOAWAY")
            if kind == _DATA:
                self._answers[stream] = self._answers.get(stream, b"") + payload
            if kind == _RST_STREAM or flags & _END_STREAM:
                row, sent_s = self._running.pop(stream, (-1, 0.0))
                answer = self._answers.pop(stream, b"")
                if row >= 0:
                    self._idle.append(row)
                    self._finish(row, sent_s, answer)

    def _finish(self, row: int, sent_s: float, answer: bytes) -> None:
        now = time.perf_counter()
        self._count += 1
        if len(answer) < 5 or len(answer) != 5 + int.from_bytes(answer[1:5]):
            self._window.error("a call ended without a message")
        elif self._count % _SAMPLE == 1 and (fault := self._check(row, answer[5:])):
            self._window.error(fault)
        else:
            self._window.answered(now, sent_s)


class StreamCall:
    """One call of ModelStreamInfer with several requests in flight; answers may come in any order."""

    def __init__(self, port: int, messages: Sequence[bytes], rows: Sequence[int], window: Window, check: Check) -> None:
        self.connection = GrpcConnection(port)
        self._messages = [frame(_DATA, 0, 1, enveloped(message)) for message in messages]
        self._rows = rows
        self._idle = list(range(len(messages)))
        self._sent_s = [0.0] * len(messages)
        self._bytes = b""
        self._window = window
        self._check = check
        self._count = 0
        self.connection.socket.sendall(frame(_HEADERS, _END_HEADERS, 1, header_block(STREAM, port)))

    @property
    def running(self) -> bool:
        """Whether answers are still out."""
        return len(self._idle) < len(self._messages)

    def send(self) -> None:
        """Send the requests that are idle and fit into the server's windows."""
        connection, out = self.connection, []
        while self._idle:
            message = self._messages[self._idle[-1]]
            size = len(message) - 9
            if size > connection.send_window or size > connection.stream_window:
                break
            connection.send_window -= size
            connection.stream_window -= size
            self._sent_s[self._idle.pop()] = time.perf_counter()
            out.append(message)
        if out:
            connection.socket.sendall(b"".join(out))

    def receive(self) -> None:
        """Take the answers that are there."""
        for kind, flags, _, payload in self.connection.receive():
            if kind in {_RST_STREAM, _GOAWAY} or (kind == _HEADERS and flags & _END_STREAM):
                raise ConnectionError("the server ended the stream")
            if kind == _DATA:
                self._bytes += payload
        place = 0
        while len(self._bytes) - place >= 5:
            end = place + 5 + int.from_bytes(self._bytes[place + 1 : place + 5])
            if len(self._bytes) < end:
                break
            self._finish(self._bytes[place + 5 : end])
            place = end
        self._bytes = self._bytes[place:]

    def _finish(self, message: bytes) -> None:
        """Take a ModelStreamInferResponse: field 1 is an error, field 2 the answer."""
        now = time.perf_counter()
        self._count += 1
        found = message.find(_ID)
        if message[:1] != b"\x12" or found < 0:
            raise ValueError(f"a stream error: {message[:200].decode(errors='replace')}")
        slot = int(message[found + 3 : found + 8])
        self._idle.append(slot)
        fault = ""
        if self._count % _SAMPLE == 1:
            size = 1
            while message[size] & 0x80:
                size += 1
            fault = self._check(self._rows[slot], message[size + 1 :])
        if fault:
            self._window.error(fault)
        else:
            self._window.answered(now, self._sent_s[slot])


def run(calls: Sequence[UnaryCalls | StreamCall], window: Window) -> Measurement:
    """Drive calls until the window ends."""
    poller = select.epoll()
    by_descriptor = {call.connection.socket.fileno(): call for call in calls}
    try:
        for descriptor, call in by_descriptor.items():
            poller.register(descriptor, select.EPOLLIN)
            call.send()
        while window.open():
            events = poller.poll(SILENCE_S)
            if not events:
                window.error(f"no answer for {SILENCE_S:.0f} s")
                break
            for descriptor, _ in events:
                by_descriptor[descriptor].receive()
                by_descriptor[descriptor].send()
        deadline = time.perf_counter() + DRAIN_S
        while any(call.running for call in calls) and time.perf_counter() < deadline:
            for descriptor, _ in poller.poll(0.5):
                by_descriptor[descriptor].receive()
    except (OSError, ValueError) as error:
        window.error(f"{type(error).__name__}: {error}")
    finally:
        poller.close()
        for call in calls:
            call.connection.socket.close()
    return window.result()


def unary(
    port: int, messages: Sequence[bytes], check: Check, in_flight: int, timing: Timing, pids: Sequence[int]
) -> Measurement:
    """Keep `in_flight` unary calls running; `messages` holds one for each row."""
    window = Window(timing, pids)
    rows = [index % len(messages) for index in range(in_flight)]
    groups = [rows[start : start + CALLS_PER_CONNECTION] for start in range(0, in_flight, CALLS_PER_CONNECTION)]
    return run([UnaryCalls(port, messages, group, window, check) for group in groups], window)


def stream(
    port: int,
    message: Callable[[int, str], bytes],
    rows: int,
    check: Check,
    in_flight: int,
    timing: Timing,
    pids: Sequence[int],
) -> Measurement:
    """Keep `in_flight` requests running on one stream; `message` makes one from row and request id."""
    window = Window(timing, pids)
    used = [slot % rows for slot in range(in_flight)]
    messages = [message(row, f"q{slot:05d}") for slot, row in enumerate(used)]
    return run([StreamCall(port, messages, used, window, check)], window)
