"""SavedModels on TensorFlow, through the graph loader: `tf.saved_model.load` fails on real Keras 2 models."""

import gc
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel, Placement, Signature
from trygon.models.backends.devices import check_device, device_missing
from trygon.models.backends.failures import load_failure, reason, run_failure
from trygon.models.backends.feeds import check_feeds
from trygon.models.backends.files import model_file
from trygon.models.backends.memory import release_memory
from trygon.models.backends.signatures import choose_signature
from trygon.models.backends.tensorflow_runtime import config_pb2, tf
from trygon.models.backends.tensorflow_signatures import GraphSignature, read_signatures
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array

TAG_PARAMETER: Final = "TF_GRAPH_TAG"
"""The configuration parameter that names a graph of the SavedModel (Triton's name for it)."""
DEFAULT_TAG: Final = "serve"
MAX_CALLABLES: Final = 16
"""Sets of outputs for which a compiled call is kept; callers choose the sets, so their number must have an end."""


class TensorflowBackend:
    """TensorFlow on CPU or CUDA."""

    def load(self, path: Path, config: ModelConfig, placement: Placement) -> LoadedModel:
        """Load the folder `model.savedmodel`; see `Backend.load`.

        The parameters `TF_GRAPH_TAG` (default `serve`) and `TF_SIGNATURE_DEF` (default `serving_default`) choose the
        graph and its signature, as in Triton.
        """
        check_device(placement, ("cpu", "cuda"), runtime="TensorFlow")
        folder = model_file(path, config, "tensorflow")
        if placement.device == "cuda" and len(tf.config.list_physical_devices("GPU")) <= placement.device_index:
            raise device_missing(placement, "TensorFlow sees no such GPU")
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=_session_config(placement))
        try:
            definitions = _load_graph(session, graph, folder, config, placement)
            signatures = read_signatures(definitions)
            chosen = choose_signature(signatures, config)
        except BaseException:
            session.close()
            raise
        release_memory()
        return TensorflowModel(session, signatures, chosen)


class TensorflowModel:
    """A session over one graph; TensorFlow runs it from several threads at once."""

    def __init__(self, session: Any, signatures: Mapping[str, GraphSignature], chosen: str) -> None:
        self._session = session
        self._served = signatures[chosen]
        self._specs = {spec.name: spec for spec in self._served.signature.inputs}
        self._feeds = tuple(self._specs)
        self._callable = lru_cache(MAX_CALLABLES)(self._make_callable)
        self.signatures = {name: found.signature for name, found in signatures.items()}
        """Every signature that can be served, by name."""

    @property
    def signature(self) -> Signature:
        """The chosen signature; its names are the signature's keys. A tensor of unknown rank has shape ()."""
        return self._served.signature

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run one batch; see `LoadedModel.run`."""
        names = list(dict.fromkeys(outputs))
        fetches = tuple(dict.fromkeys(self._served.tensors[name] for name in sorted(names)))
        if not names:
            return {}
        check_feeds(self._specs, inputs, any_rank=self._served.any_rank)
        feeds = [inputs[name] for name in self._feeds]
        try:
            values = self._callable(fetches)(*feeds)
        except Exception as error:
            refused = isinstance(error, tf.errors.InvalidArgumentError | ValueError | TypeError)
            raise run_failure(error, rejected=refused) from error
        found = dict(zip(fetches, values, strict=True))
        return {name: found[self._served.tensors[name]] for name in names}

    def close(self) -> None:
        """Free the graph and the variables.

        TensorFlow's allocator for oneDNN keeps the working memory of the largest batch so far for the process's other
        models; it does not grow from one model to the next (see benchmarks/unload_memory.py).
        """
        if self._session is not None:
            self._callable.cache_clear()
            self._session.close()
            self._session = None
            gc.collect()  # TensorFlow's Python graph is full of cycles
            release_memory()

    def _make_callable(self, fetches: tuple[str, ...]) -> Any:
        options = config_pb2.CallableOptions(feed=[self._served.feeds[name] for name in self._feeds], fetch=fetches)
        # The public make_callable resolves its fetches anew on each call: 216 µs against 68 µs on a graph of two ops.
        return self._session._make_callable_from_options(options)  # noqa: SLF001 - no public way is as fast


def _session_config(placement: Placement) -> Any:
    """Return a configuration with the placement's threads; a model on the CPU touches no GPU."""
    gpu = placement.device == "cuda"
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=placement.threads,
        inter_op_parallelism_threads=placement.instances,
        use_per_session_threads=True,
        allow_soft_placement=True,
        device_count={} if gpu else {"GPU": 0},
        gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
    )


def _load_graph(session: Any, graph: Any, folder: Path, config: ModelConfig, placement: Placement) -> Mapping[str, Any]:
    """Load graph and variables; return the signature definitions by name."""
    tag = config.parameters[TAG_PARAMETER].string_value if TAG_PARAMETER in config.parameters else ""
    device = f"/GPU:{placement.device_index}" if placement.device == "cuda" else "/CPU:0"
    try:
        with graph.as_default(), graph.device(device):
            loaded = tf.compat.v1.saved_model.loader.load(session, [tag or DEFAULT_TAG], str(folder))
    except Exception as error:
        if tag and "MetaGraphDef" in str(error):
            why = reason(error, folder)
            raise InferenceError(ErrorCode.MODEL_CONFIG_INVALID, f"{TAG_PARAMETER}: {why}", tag=tag) from error
        raise load_failure(error, folder, placement.device) from error
    return dict(loaded.signature_def)
