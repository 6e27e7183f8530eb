"""Measure what unloading a model gives back: resident memory before loading, loaded, after runs and after closing.

    python benchmarks/unload_memory.py

Each runtime is measured in a process of its own, once it is imported and has run another model, so that the table
shows the model and not the runtime. ONNX: eight matrices of 2560 by 2560 (200 MiB), made on the fly. TensorFlow and
LiteRT: the audio model of the basic-pitch wheel, with batches of 16.
"""

import gc
import importlib.metadata
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from trygon.models.backends import backend
from trygon.models.backends.base import LoadedModel, Placement
from trygon.models.backends.memory import release_memory
from trygon.models.proto.model_config_pb2 import ModelConfig

MEBIBYTE: Final = 1024 * 1024
WIDTH: Final = 2560
LAYERS: Final = 8
ROUNDS: Final = 5
RUNS: Final = 3
DIGITS: Final = Path(__file__).resolve().parent.parent / "examples" / "models"


def resident_mib() -> float:
    """Return this process's resident memory in MiB."""
    return psutil.Process().memory_info().rss / MEBIBYTE


def write_large_onnx(folder: Path) -> None:
    """Write a chain of matrix products to `model.onnx`."""
    random = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]) for layer in range(LAYERS)]
    weights = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH), dtype=np.float32) / WIDTH, f"w{layer}")
        for layer in range(LAYERS)
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(f"x{LAYERS}", TensorProto.FLOAT, ["batch", WIDTH])],
        weights,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )


def run(model: LoadedModel, rows: int) -> None:
    """Run a batch of zeros a few times."""
    (spec,) = model.signature.inputs
    batch = np.zeros((rows, *spec.shape[1:]), dtype=spec.datatype.numpy)
    for _ in range(RUNS):
        model.run({spec.name: batch}, [output.name for output in model.signature.outputs])


def measure(name: str, path: Path, filename: str, rows: int, results: Any) -> None:
    """Load, run and close a model several times; put (stage, MiB) of the first and the last round."""
    runtime = backend(name)
    config = ModelConfig(default_model_filename=filename)
    digits = {"onnxruntime": "digits_onnx", "tensorflow": "digits_tensorflow", "litert": "digits_litert"}[name]
    warm = runtime.load(DIGITS / digits / "1", ModelConfig(), Placement())
    run(warm, rows)
    warm.close()
    gc.collect()
    release_memory()
    found = [resident_mib()]
    for _ in range(ROUNDS):
        model = runtime.load(path, config, Placement())
        loaded = resident_mib()
        run(model, rows)
        ran = resident_mib()
        model.close()
        found += [loaded, ran, resident_mib()]
    results.put(found)


def main() -> None:
    """Print the table."""
    files = importlib.metadata.files("basic-pitch") or []
    pitch = next(Path(str(file.locate())).parent for file in files if file.name == "nmp.onnx")
    context = multiprocessing.get_context("spawn")
    print("| runtime, model | before | loaded | after runs | closed | closed, round 5 |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_large_onnx(Path(folder))
        for label, *arguments in (
            ("onnxruntime, 200 MiB of weights", "onnxruntime", Path(folder), "model.onnx", 1000),
            ("tensorflow, basic-pitch", "tensorflow", pitch, "nmp", 16),
            ("litert, basic-pitch", "litert", pitch, "nmp.tflite", 16),
        ):
            results = context.Queue()
            process = context.Process(target=measure, args=(*arguments, results))
            process.start()
            found = results.get()
            process.join()
            shown = [found[0], *found[1:4], found[-1]]
            print(f"| {label} | {' | '.join(f'{size:.0f} MiB' for size in shown)} |")


if __name__ == "__main__":
    main()
