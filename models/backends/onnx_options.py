"""How ONNX Runtime runs a model: the session options that placement and configuration ask for."""

from typing import Any, Final

from onnxruntime import ExecutionMode, GraphOptimizationLevel, SessionOptions

from trygon.errors import ErrorCode, InferenceError
from trygon.models.backends.base import Placement
from trygon.models.names import shorten
from trygon.models.proto.model_config_pb2 import ModelConfig

MAX_THREADS: Final = 1024
"""Most threads that a configuration may ask for; far beyond what helps, and well below what a process can have."""

_OPTIMIZATION_LEVELS: Final = {
    -1: GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_EXECUTION_MODES: Final = (ExecutionMode.ORT_SEQUENTIAL, ExecutionMode.ORT_PARALLEL)


def session_options(config: ModelConfig, placement: Placement) -> Any:
    """Return the session's options: `placement.threads` threads, unless the configuration asks for others.

    Understood, as Triton's ONNX Runtime backend does: the parameters `intra_op_thread_count` and
    `inter_op_thread_count` (0 leaves the choice to the server), `execution_mode` (0 sequential, 1 parallel), and
    `optimization.graph.level` (-1 basic, 0 all, 1 extended, 2 none).

    Raises: MODEL_CONFIG_INVALID, naming the field.
    """
    options = SessionOptions()
    options.intra_op_num_threads = _number(config, "intra_op_thread_count", MAX_THREADS) or placement.threads
    options.inter_op_num_threads = _number(config, "inter_op_thread_count", MAX_THREADS) or 1
    options.execution_mode = _EXECUTION_MODES[_number(config, "execution_mode", 1)]
    level = config.optimization.graph.level
    if level not in _OPTIMIZATION_LEVELS:
        raise _invalid("optimization.graph.level", str(level), "-1, 0, 1 or 2")
    options.graph_optimization_level = _OPTIMIZATION_LEVELS[level]
    # Each failure is raised as well: logging it too would let callers fill the log with bad input.
    options.log_severity_level = 4
    # Models share the machine's cores: a thread that spins between two runs takes them from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _number(config: ModelConfig, name: str, most: int) -> int:
    """Return the parameter `name` as a number from 0 to `most`; 0 if it is absent."""
    if name not in config.parameters:
        return 0
    text = config.parameters[name].string_value.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise _invalid(f"parameters.{name}", text, f"a number from 0 to {most}")
    return int(text)


def _invalid(field: str, value: str, allowed: str) -> InferenceError:
    return InferenceError(
        ErrorCode.MODEL_CONFIG_INVALID, f"{field} is '{shorten(value)}'; it must be {allowed}", field=field
    )
