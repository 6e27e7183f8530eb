"""Bare uvicorn and starlette around ONNX Runtime in one process: no batching, inference in the event loop.

MODELS=name=folder,… python uvicorn_server.py PORT
"""

# ruff: noqa: ANN001, ANN201 - runs in a peer's environment, in the style of its examples

import os
import sys

import uvicorn
import v2
from session import Session
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

SESSIONS = {name: Session(folder) for name, folder in (pair.split("=", 1) for pair in os.environ["MODELS"].split(","))}


async def infer(request):
    """Answer one inference."""
    name = request.path_params["model"]
    session = SESSIONS[name]
    outputs = session.run(v2.decode(await request.body(), request.headers[v2.HEADER]))
    body, headers = v2.encode(name, session.outputs, outputs)
    return Response(body, headers=headers)


async def live(_request):
    """Answer that the server lives."""
    return Response()


app = Starlette(
    routes=[Route("/v2/models/{model}/infer", infer, methods=["POST"]), Route("/v2/health/live", live)],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
