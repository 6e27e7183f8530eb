"""The load generators take answers apart as they come, and find the wrong ones."""

import itertools
import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from field import grpc_load, payload
from field.load import Connection, HttpLoad, poisson
from field.window import Timing
from field.works import BY_NAME, Array

ABOUT = {"input": "x", "outputs": ["y"]}
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = Timing(0.0, 0.02)


class Peer:
    """A server for one connection, in the test's own thread."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepted: socket.socket | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def socket(self) -> socket.socket:
        if self._accepted is None:
            self._accepted = self._listener.accept()[0]
        return self._accepted

    def serve(self, answer: bytes, requests: int) -> threading.Thread:
        """Answer so many requests of one connection, each with the same bytes, then close."""

        def run() -> None:
            with self.socket as connection:
                for _ in range(requests):
                    if not connection.recv(65_536):
                        return
                    connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def close(self) -> None:
        self._listener.close()
        if self._accepted is not None:
            self._accepted.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def received(connection: Connection) -> bytes | None:
    connection.socket.setblocking(True)
    return connection.receive()


def test_an_answer_in_pieces_is_put_together(peer: Peer) -> None:
    connection = Connection(peer.port)
    connection.send(b"request")
    for piece in (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 6\r\n\r\nab", b"cd"):
        peer.socket.sendall(piece)
        assert received(connection) is None
    peer.socket.sendall(b"ef")
    assert received(connection) == b"abcdef"
    assert connection.head.startswith(b"HTTP/1.1 200")
    connection.socket.close()


def test_a_chunked_answer_is_put_together(peer: Peer) -> None:
    connection = Connection(peer.port)
    connection.send(b"request")
    peer.socket.sendall(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
    assert received(connection) == b"abcde"
    connection.socket.close()


def test_a_large_request_is_sent_as_the_socket_takes_it(peer: Peer) -> None:
    connection = Connection(peer.port)
    request = bytes(range(256)) * 65_536
    assert not connection.send(request)
    parts = []
    while sum(map(len, parts)) < len(request):
        parts.append(peer.socket.recv(1 << 20))
        try:
            connection.flush()
        except BlockingIOError:
            continue
    assert b"".join(parts) == request
    assert connection.pending is None
    connection.socket.close()


def test_an_answer_without_a_length_is_no_answer(peer: Peer) -> None:
    connection = Connection(peer.port)
    connection.send(b"request")
    peer.socket.sendall(OK + b"\r\n")
    with pytest.raises(ValueError, match="without a length"):
        received(connection)
    connection.socket.close()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", "HTTP/1.1 503 Bu: busy"),
        (OK + b"Content-Length: 5\r\n\r\nwrong", "an answer with wrong values"),
    ],
)
def test_a_wrong_status_and_wrong_values_are_errors(peer: Peer, answer: bytes, fault: str) -> None:
    thread = peer.serve(answer, 1000)
    load = HttpLoad(peer.port, [b"request"], lambda *_: "an answer with wrong values", [])
    got = load.closed_loop(1, Timing(0.0, 5.0))
    thread.join()
    assert got.errors >= 1
    assert got.first_error == fault


def test_right_answers_are_counted_and_a_lost_connection_is_an_error(peer: Peer) -> None:
    thread = peer.serve(OK + b"Content-Length: 2\r\n\r\nok", 100_000)
    got = HttpLoad(peer.port, [b"request"], lambda *_: "", []).closed_loop(1, SHORT)
    thread.join()
    assert got.errors == 0
    assert got.requests >= 5


def test_poisson_arrivals_have_the_rate_and_the_spread_of_chance() -> None:
    times = list(itertools.islice(poisson(1000, 5.0), 50_000))
    gaps = np.diff(times)
    assert times[0] > 5.0
    assert gaps.mean() == pytest.approx(0.001, rel=0.03)
    assert gaps.std() == pytest.approx(0.001, rel=0.03)


def row() -> Array:
    return BY_NAME["tiny"].rows()[0]


def test_a_binary_answer_is_read_back() -> None:
    outputs = [np.arange(10, dtype=np.float32)[None]]
    data = outputs[0].tobytes()
    head = b'{"outputs":[{"name":"y","shape":[1,10],"parameters":{"binary_data_size":40}}]}'
    form = payload.V2Binary()
    given = form.answer(ABOUT, b"\r\nInference-Header-Content-Length: %d\r\n" % len(head), head + data)
    assert payload.agrees(given, outputs)
    assert not payload.agrees([given[0] + 1], outputs)
    assert not payload.agrees([given[0][:, :9]], outputs)
    with pytest.raises(ValueError, match="not binary"):
        form.answer(ABOUT, b"\r\n", head + data)


def test_requests_hold_the_row() -> None:
    head, _, body = payload.V2Binary().request(BY_NAME["tiny"], ABOUT, row()).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/models/tiny/infer HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.endswith(row().tobytes())
    assert payload.RawBytes("/p").request(BY_NAME["tiny"], ABOUT, row()).endswith(row().tobytes())


def frames(*parts: bytes) -> bytes:
    return b"".join(parts)


def test_frames_are_taken_apart_and_control_frames_answered(peer: Peer) -> None:
    connection = grpc_load.GrpcConnection(peer.port)
    settings = struct.pack(">HI", 4, 1_000_000)
    sent = frames(
        grpc_load.frame(4, 0, 0, settings),
        grpc_load.frame(6, 0, 0, b"pingpong"),
        grpc_load.frame(8, 0, 0, struct.pack(">I", 500)),
        grpc_load.frame(0, 8, 1, b"\x02dataxx"),
        grpc_load.frame(1, 5, 1, b"trailers"),
    )
    peer.socket.sendall(sent[:-3])
    assert connection.receive() == [(0, 8, 1, b"data")]
    peer.socket.sendall(sent[-3:])
    assert connection.receive() == [(1, 5, 1, b"trailers")]
    assert connection.stream_window == 1_000_000
    assert connection.send_window == 65_535 + 500
    said = peer.socket.recv(65_536)
    assert said.startswith(b"PRI * HTTP/2.0")
    assert said.endswith(grpc_load.frame(4, 1, 0, b"") + grpc_load.frame(6, 1, 0, b"pingpong"))
    connection.socket.close()


def grpc_peer(peer: Peer, answers: bytes) -> threading.Thread:
    """Answer the first request with bytes, end one's own side, and close after the client has."""

    def run() -> None:
        with peer.socket as connection:
            connection.recv(65_536)
            connection.sendall(answers)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def infer_response(request_id: str = "") -> bytes:
    message = payload.service_pb2.ModelInferResponse(model_name="tiny", id=request_id)
    message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    message.raw_output_contents.append(np.ones(2, np.float32).tobytes())
    return bytes(message.SerializeToString())


def test_a_call_that_ends_without_a_message_is_an_error(peer: Peer) -> None:
    thread = grpc_peer(peer, grpc_load.frame(1, 5, 1, b"status 5"))
    got = grpc_load.unary(peer.port, [b"m"], lambda *_: "", 1, Timing(0.0, 0.05), [])
    thread.join()
    assert got.first_error == "a call ended without a message"


def test_a_whole_call_is_an_answer(peer: Peer) -> None:
    seen: list[Array] = []

    def check(_: int, message: bytes) -> str:
        seen.extend(payload.grpc_answer(ABOUT, message))
        return "" if payload.agrees(seen, [np.ones(2, np.float32)]) else "wrong"

    answer = grpc_load.enveloped(infer_response())
    thread = grpc_peer(
        peer,
        frames(
            grpc_load.frame(1, 4, 1, b"ok"),
            grpc_load.frame(0, 0, 1, answer[:7]),
            grpc_load.frame(0, 0, 1, answer[7:]),
            grpc_load.frame(1, 5, 1, b"done"),
            grpc_load.frame(7, 0, 0, bytes(8)),
        ),
    )
    got = grpc_load.unary(peer.port, [b"m"], check, 1, Timing(0.0, 0.05), [])
    thread.join()
    assert len(seen) == 1
    assert got.first_error == "ConnectionError: the server said GOAWAY"


def test_answers_on_a_stream_are_matched_by_their_id(peer: Peer) -> None:
    rows: list[int] = []
    stream = payload.service_pb2.ModelStreamInferResponse
    messages = b"".join(
        grpc_load.enveloped(
            stream(infer_response=payload.service_pb2.ModelInferResponse.FromString(response)).SerializeToString()
        )
        for response in (infer_response("q00001"),)
    )

    def check(row: int, _: bytes) -> str:
        rows.append(row)
        return ""

    thread = grpc_peer(peer, frames(grpc_load.frame(0, 0, 1, messages), grpc_load.frame(1, 5, 1, b"end")))
    got = grpc_load.stream(peer.port, lambda _, request_id: request_id.encode(), 2, check, 2, Timing(0.0, 0.05), [])
    thread.join()
    assert got.first_error == "ConnectionError: the server ended the stream"
    assert rows in ([1], [])


def test_an_error_on_a_stream_is_told(peer: Peer) -> None:
    message = payload.service_pb2.ModelStreamInferResponse(error_message="no such model")
    thread = grpc_peer(peer, grpc_load.frame(0, 0, 1, grpc_load.enveloped(message.SerializeToString())))
    got = grpc_load.stream(peer.port, lambda *_: b"m", 1, lambda *_: "", 1, Timing(0.0, 0.05), [])
    thread.join()
    assert "no such model" in got.first_error
