"""Clients of the shared server, and small ONNX models to put into its repository.

`http_address`, `grpc_address` and the models of `client_models` are what the client tests of
tests/unit/deployments/api ask for: links to those files run them against the real server too.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 60

ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


class ModelFolder:
    """A model's folder in the repository, with versions that multiply INPUT0 (FP32 [-1,4]) into OUTPUT0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def write_config(self, text: str) -> None:
        self.path.mkdir(exist_ok=True)
        (self.path / "config.pbtxt").write_text(text)

    def write_version(self, version: int, content: bytes) -> None:
        """Put a version's file there as deployments do: complete or not at all."""
        folder = self.path / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / ".draft"
        draft.write_bytes(content)
        draft.rename(folder / "model.onnx")


def identity(datatype: str) -> bytes:
    """Return a model that answers INPUT0 [-1,-1] as OUTPUT0."""
    return _model(helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"]), ELEMENT_TYPES[datatype], ["rows", "columns"])


def scale(factor: float, width: int | str = 4) -> bytes:
    """Return a model that answers INPUT0 (FP32 [-1,width]; a name is any width) times `factor` as OUTPUT0."""
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    node = helper.make_node("Mul", ["INPUT0", "factor"], ["OUTPUT0"])
    return _model(node, TensorProto.FLOAT, ["rows", width], constant)


def lookup() -> bytes:
    """Return a model that reads OUTPUT0 (FP32 [-1,1]) at INPUT0 (INT64 [-1,1]) of a table of 4, and fails beyond it."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [0, 10, 20, 30])
    node = helper.make_node("Gather", ["table", "INPUT0"], ["OUTPUT0"])
    return _model(node, TensorProto.INT64, ["rows", 1], table, answers=TensorProto.FLOAT)


def _model(node: Any, element: int, shape: list[Any], *constants: Any, answers: int | None = None) -> bytes:
    given = helper.make_tensor_value_info("INPUT0", element, shape)
    answered = helper.make_tensor_value_info("OUTPUT0", answers or element, shape)
    graph = helper.make_graph([node], "test", [given], [answered], list(constants))
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def scaling_model() -> Callable[..., bytes]:
    return scale


@pytest.fixture(scope="session")
def identity_model() -> Callable[[str], bytes]:
    return identity


@pytest.fixture(scope="session")
def lookup_model() -> bytes:
    return lookup()


@pytest.fixture(scope="session")
def http(server: Any) -> Iterator[httpx.Client]:
    """A client for requests that no Triton client would send."""
    with httpx.Client(base_url=server.http_url, timeout=DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="module")
def http_client(server: Any) -> Iterator[triton_http.InferenceServerClient]:
    address = server.http_url.removeprefix("http://")
    with triton_http.InferenceServerClient(address, network_timeout=DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="module")
def grpc_client(server: Any) -> Iterator[triton_grpc.InferenceServerClient]:
    with triton_grpc.InferenceServerClient(server.grpc_url) as client:
        yield client


@pytest.fixture(scope="session")
def begin_folder() -> Callable[[Path], ModelFolder]:
    """Begin a model's folder in a repository of the test's own."""
    return ModelFolder


@pytest.fixture
def model_folder(server: Any, http_client: triton_http.InferenceServerClient) -> Iterator[Callable[[str], ModelFolder]]:
    """Begin folders in the shared server's repository; whatever was loaded from them is unloaded at the test's end."""
    begun: list[ModelFolder] = []

    def begin(name: str) -> ModelFolder:
        begun.append(ModelFolder(server.repository / name))
        return begun[-1]

    yield begin
    loaded = {entry["name"] for entry in http_client.get_model_repository_index() if entry["state"] == "READY"}
    for folder in begun:
        if folder.name in loaded:
            http_client.unload_model(folder.name)


@pytest.fixture(scope="session")
def digit() -> Any:
    """The example request's image, float32 [1,64]; it shows a 9."""
    request = httpx.Response(200, content=(ROOT / "examples" / "requests" / "digit.json").read_bytes()).json()
    return np.array(request["inputs"][0]["data"], np.float32).reshape(1, 64)


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Ask again and again until a condition holds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {DEADLINE_S} s"

    return wait


@pytest.fixture(scope="session")
def client_models(server: Any) -> None:
    """Load what tests/unit/deployments/api/conftest.py describes: `double` from a folder, the others as sent files."""
    double = ModelFolder(server.repository / "double")
    double.write_config('max_batch_size: 8 dynamic_batching {} output { name: "OUTPUT0" label_filename: "labels.txt" }')
    (double.path / "labels.txt").write_text("cat\ndog\nfish\n")
    double.write_version(1, scale(2))
    config = (
        '{"max_batch_size": 0, "input": [{"name": "INPUT0", "data_type": "TYPE_%(type)s", "dims": [-1, -1]}],'
        ' "output": [{"name": "OUTPUT0", "data_type": "TYPE_%(type)s", "dims": [-1, -1]}]}'
    )

    def load(datatype: str | None) -> None:
        with triton_grpc.InferenceServerClient(server.grpc_url) as client:
            if datatype is None:
                client.load_model("double")
                return
            name = "STRING" if datatype == "BYTES" else datatype
            client.load_model(
                f"identity_{datatype.lower()}",
                config=config % {"type": name},
                files={"file:1/model.onnx": identity(datatype)},
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load, [None, *ELEMENT_TYPES]))


@pytest.fixture(scope="session")
def http_address(server: Any, client_models: None) -> str:
    del client_models
    address: str = server.http_url.removeprefix("http://")
    return address


@pytest.fixture(scope="session")
def grpc_address(server: Any, client_models: None) -> str:
    del client_models
    address: str = server.grpc_url
    return address
