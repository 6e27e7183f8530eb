"""Makes the models: four ONNX graphs written here, basic-pitch from its wheel, and the operator that sleeps."""

import importlib.metadata
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from field.works import Array, Work

DEVICE_US: Final = 20_000
LIBRARY: Final = "libsleep.so"
_LAYERS: Final = {"tiny": (64, 10), "device": (64, 10), "mlp": (64, 1600, 1600, 10)}
_SOURCE: Final = Path(__file__).with_name("sleep_op.c")


def make_model(work: Work, folder: Path) -> None:
    """Write `model.onnx`, `about.json` and, for the device, its operator's library to `folder`.

    Raises: OSError or CalledProcessError when there is no C compiler for the library.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library = ""
    if work.name == "pitch":
        shutil.copyfile(_wheel_file("basic-pitch", "nmp.onnx"), folder / "model.onnx")
    elif work.name == "identity":
        _save([helper.make_node("Identity", ["x"], ["y"])], [], work.shape, work.shape, folder)
    else:
        library = LIBRARY if work.name == "device" else ""
        _write_mlp(_LAYERS[work.name], folder, sleeps=bool(library))
    if library:
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", folder / library, _SOURCE], check=True)
    session = open_session(folder, library)
    about = {
        "input": session.get_inputs()[0].name,
        "outputs": [output.name for output in session.get_outputs()],
        "shape": work.shape,
        "max_batch_size": work.max_batch_size,
        "library": library,
    }
    (folder / "about.json").write_text(json.dumps(about))


def open_session(folder: Path, library: str) -> Any:
    """Open the model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if library:
        options.register_custom_ops_library(str(folder / library))
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def reference(work: Work, folder: Path) -> tuple[dict[str, Any], list[list[Array]]]:
    """Return the model's description, and for each row of `work.rows()` the outputs (batch of one) it must give."""
    about: dict[str, Any] = json.loads((folder / "about.json").read_text())
    session = open_session(folder, about["library"])
    return about, [session.run(about["outputs"], {about["input"]: row[None]}) for row in work.rows()]


def _write_mlp(widths: tuple[int, ...], folder: Path, *, sleeps: bool) -> None:
    random = np.random.default_rng(1)
    nodes, weights, value = [], [], "x"
    for layer, (rows, columns) in enumerate(itertools.pairwise(widths)):
        matrix = random.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(np.float32(rows))
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"]))
        value = f"h{layer}"
        if layer < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [value], [f"r{layer}"]))
            value = f"r{layer}"
    nodes.append(helper.make_node("Identity", [value], ["z" if sleeps else "y"]))
    if sleeps:
        nodes.append(helper.make_node("Sleep", ["x"], ["zero"], domain="bench", microseconds=DEVICE_US))
        nodes.append(helper.make_node("Add", ["z", "zero"], ["y"]))
    _save(nodes, weights, widths[:1], widths[-1:], folder)


def _save(
    nodes: list[Any], weights: list[Any], given: tuple[int, ...], answered: tuple[int, ...], folder: Path
) -> None:
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("x", given), ("y", answered))
    ]
    graph = helper.make_graph(nodes, "bench", tensors[:1], tensors[1:], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bench", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")


def _wheel_file(package: str, name: str) -> Path:
    files = importlib.metadata.files(package) or []
    return next(Path(str(file.locate())) for file in files if file.name == name)
