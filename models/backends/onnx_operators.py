"""Custom operators of ONNX models: the shared libraries that `model_operations` names."""

from pathlib import Path
from typing import Any, Final

from trygon.models.backends.failures import load_failure
from trygon.models.names import existing_file
from trygon.models.proto.model_config_pb2 import ModelConfig

FIELD: Final = "model_operations.op_library_filename"


def register_operators(options: Any, config: ModelConfig, folder: Path) -> None:
    """Register the configuration's operator libraries with session `options`.

    Each is a file in the model's `folder`, named relative to it, and exports ONNX Runtime's `RegisterCustomOps`. It
    runs as native code in the replica: whoever may write there may do what the server may. Replace such a file by
    renaming another one over it: writing into a library that is loaded ends the process that uses it. Source: Triton's
    model configuration, "model_operations".

    Raises: MODEL_CONFIG_INVALID for a path that leaves the folder, MODEL_FILE_MISSING, MODEL_FILE_INVALID for a file
    that is no such library.
    """
    for name in config.model_operations.op_library_filename:
        library = existing_file(folder, name, field=FIELD)
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            raise load_failure(error, library) from error
