"""Train one small network on scikit-learn's digits and write it as ONNX, SavedModel and LiteRT models.

    python examples/train_digits.py [FOLDER]

FOLDER (default: the folder of this file) gets `models/`, a model repository with the same network three times, and
`requests/digit.json`, a KServe request with a digit that the network has not seen. Everything is seeded: a second run
gives the same weights.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

Floats = npt.NDArray[np.float32]

SEED: Final = 7
PIXELS: Final = 64
CLASSES: Final = 10
DEEPEST_GREY: Final = 16
"""The largest pixel value of the data set."""
EXAMPLE: Final = 0
"""Index in the test set of the digit that the example request sends."""
BACKENDS: Final = {"onnx": "onnxruntime", "tensorflow": "tensorflow", "litert": "litert"}
CONFIG: Final = """\
name: "digits_{suffix}"
backend: "{backend}"
max_batch_size: 32
input [
  {{ name: "image" data_type: TYPE_FP32 dims: [ 64 ] }}
]
output [
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 10 ] label_filename: "labels.txt" }}
]
dynamic_batching {{ }}
"""


@dataclass(frozen=True)
class Digits:
    """Images of handwritten digits, float32 [N, 64] from 0 (white) to 1, and which digit each is, int64 [N]."""

    images: Floats
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Network:
    """Weights of a perceptron with one hidden layer: image [N, 64] → relu → softmax → probabilities [N, 10]."""

    hidden_weights: Floats
    hidden_bias: Floats
    weights: Floats
    bias: Floats


def load_data() -> tuple[Digits, Digits]:
    """Return the training set and the test set (a fifth of the 1,797 images, stratified)."""
    bunch = load_digits()
    images = (bunch.data / DEEPEST_GREY).astype(np.float32)
    parts = train_test_split(images, bunch.target, test_size=0.2, random_state=SEED, stratify=bunch.target)
    train_images, test_images, train_labels, test_labels = parts
    return Digits(train_images, train_labels), Digits(test_images, test_labels)


def train(digits: Digits) -> Network:
    """Return a network trained on `digits`."""
    classifier = MLPClassifier(hidden_layer_sizes=(64,), max_iter=400, tol=1e-3, random_state=SEED)
    classifier.fit(digits.images, digits.labels)
    (hidden_weights, weights), (hidden_bias, bias) = classifier.coefs_, classifier.intercepts_
    return Network(*(array.astype(np.float32) for array in (hidden_weights, hidden_bias, weights, bias)))


def write_onnx(network: Network, path: Path) -> None:
    """Write the network as an ONNX model."""
    nodes = [
        helper.make_node("Gemm", ["image", "hidden_weights", "hidden_bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", PIXELS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in vars(network).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class _Module(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
    def __init__(self, network: Network) -> None:
        super().__init__(name="digits")
        self.parameters = {name: tf.Variable(array, name=name) for name, array in vars(network).items()}

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32, name="image")])  # type: ignore[untyped-decorator] # as above
    def predict(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = tf.nn.relu(image @ self.parameters["hidden_weights"] + self.parameters["hidden_bias"])
        return {"probabilities": tf.nn.softmax(hidden @ self.parameters["weights"] + self.parameters["bias"])}


def write_tensorflow(network: Network, folder: Path) -> None:
    """Write the network as a SavedModel with the signature `serving_default`."""
    module = _Module(network)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.predict})


def write_litert(saved_model: Path, path: Path) -> None:
    """Convert a SavedModel to LiteRT; the batch stays of any size."""
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert())


def write_request(digits: Digits, path: Path) -> int:
    """Write the KServe request for one digit, and return which digit it is."""
    image = [round(float(pixel), 4) for pixel in digits.images[EXAMPLE]]
    tensor = {"name": "image", "shape": [1, PIXELS], "datatype": "FP32", "data": image}
    path.write_text(json.dumps({"inputs": [tensor]}) + "\n")
    return int(digits.labels[EXAMPLE])


def write_examples(folder: Path) -> float:
    """Train, write `models/` and `requests/` below `folder`, and return the share of the test set that is right."""
    training, test = load_data()
    network = train(training)
    versions = {suffix: folder / "models" / f"digits_{suffix}" / "1" for suffix in BACKENDS}
    for suffix, version in versions.items():
        version.mkdir(parents=True, exist_ok=True)
        version.with_name("config.pbtxt").write_text(CONFIG.format(suffix=suffix, backend=BACKENDS[suffix]))
        version.with_name("labels.txt").write_text("".join(f"{digit}\n" for digit in range(CLASSES)))
    write_onnx(network, versions["onnx"] / "model.onnx")
    write_tensorflow(network, versions["tensorflow"] / "model.savedmodel")
    write_litert(versions["tensorflow"] / "model.savedmodel", versions["litert"] / "model.tflite")
    (folder / "requests").mkdir(exist_ok=True)
    digit = write_request(test, folder / "requests" / "digit.json")
    hidden = np.maximum(test.images @ network.hidden_weights + network.hidden_bias, 0)
    accuracy = float(np.mean(np.argmax(hidden @ network.weights + network.bias, axis=1) == test.labels))
    print(f"accuracy on {len(test.labels)} digits: {accuracy:.1%}; the example request is a {digit}")
    return accuracy


if __name__ == "__main__":
    write_examples(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
