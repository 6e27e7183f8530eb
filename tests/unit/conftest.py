"""A server that speaks the v2 repository protocol over HTTP, with answers that the test sets."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class RepositoryServer:
    """Answers with `answers[METHOD path]`, a status and a body; records the requests in `asked`."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = f"{self.command} {self.path}"
                outer.asked.append(asked)
                status, body = outer.answers.get(asked, (404, {"error": "unknown route"}))
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = answer  # noqa: N815 - the name that http.server calls
            do_POST = answer  # noqa: N815 - the name that http.server calls

            def log_message(self, *arguments: object) -> None:
                """Keep the test's output quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def set_index(self, *rows: tuple[str, str, str, str]) -> None:
        index = [dict(zip(("name", "version", "state", "reason"), row, strict=True)) for row in rows]
        self.answers["POST /v2/repository/index"] = (200, index)


@pytest.fixture
def v2_server() -> Iterator[RepositoryServer]:
    server = RepositoryServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()
