"""LiteRT (.tflite) models on ai-edge-litert: a pool of interpreters, because one serves one thread."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import LoadedModel, Placement, Signature
from trygon.models.backends.devices import check_device
from trygon.models.backends.failures import load_failure, run_failure
from trygon.models.backends.feeds import check_feeds
from trygon.models.backends.files import model_file
from trygon.models.backends.litert_batches import Batching, BatchPlan, plan_batches
from trygon.models.backends.litert_graph import LitertGraph
from trygon.models.backends.memory import release_memory
from trygon.models.proto.model_config_pb2 import ModelConfig
from trygon.models.tensors import Array

PLATFORM: Final = "litert_tflite"

_SHAPE_REFUSED: Final = "failed to prepare"
"""What LiteRT says when its graph cannot have the input's shape; the rest of its RuntimeErrors are failures."""


class LitertBackend:
    """LiteRT on CPU."""

    def load(self, path: Path, config: ModelConfig, placement: Placement) -> LoadedModel:
        """Load `model.tflite`; see `Backend.load`.

        Names are those of the signature `serving_default`, or the only one, or the one that the parameter
        `TF_SIGNATURE_DEF` names; a file without signatures has its tensors' own names.
        """
        check_device(placement, ("cpu",), runtime="LiteRT")
        file = model_file(path, config, "litert")
        try:
            # Read, not mapped: a file that is overwritten under a mapping would end the replica with SIGBUS.
            content = file.read_bytes()
            graphs = [LitertGraph(content, config, placement.threads) for _ in range(placement.instances)]
            plan = plan_batches(graphs[0], wanted=config.max_batch_size > 0)
        except InferenceError as error:
            if error.code is ErrorCode.TENSOR_DATA_INVALID:  # a type that KServe lacks
                raise load_failure(error, file) from error
            raise
        except Exception as error:
            raise load_failure(error, file) from error
        release_memory()
        return LitertModel(graphs, plan)


class LitertModel:
    """Interpreters of one model; each run borrows one."""

    def __init__(self, graphs: Sequence[LitertGraph], plan: BatchPlan) -> None:
        inputs, outputs = plan.specs(graphs[0].inputs), plan.specs(graphs[0].outputs)
        self._signature = Signature(PLATFORM, inputs, outputs, plan.batching is not Batching.NONE)
        self._specs = {spec.name: spec for spec in inputs}
        self._plan = plan
        self._idle: SimpleQueue[LitertGraph] = SimpleQueue()
        for graph in graphs:
            self._idle.put(graph)

    @property
    def signature(self) -> Signature:
        """The signature's tensors; the first dimension is -1 when the graph takes batches, resized or split."""
        return self._signature

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run one batch; see `LoadedModel.run`. Waits while all interpreters are at work."""
        check_feeds(self._specs, inputs, any_rank=frozenset())
        graph = self._idle.get()
        try:
            values = self._plan.run(graph, inputs)
        except InferenceError:
            raise
        except Exception as error:
            refused = not isinstance(error, RuntimeError) or _SHAPE_REFUSED in str(error)
            raise run_failure(error, rejected=refused) from error
        finally:
            self._idle.put(graph)
        return {name: values[name] for name in outputs}

    def close(self) -> None:
        """Free the interpreters, and with the last of them the file's content."""
        while not self._idle.empty():
            self._idle.get()
        release_memory()
