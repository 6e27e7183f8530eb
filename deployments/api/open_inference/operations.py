"""The table of KServe v2 routes: the infer routes first, because every request is matched from the top."""

from collections.abc import Iterator
from typing import Final

from trygon.deployments.api.open_inference.http import OpenInferenceHttp, unsupported
from trygon.deployments.api.operation import Endpoint, Operation
from trygon.errors import ErrorCode

_MODEL: Final = (
    ErrorCode.MODEL_NOT_FOUND,
    ErrorCode.MODEL_VERSION_NOT_FOUND,
    ErrorCode.MODEL_VERSION_INVALID,
)
_READY_MODEL: Final = (*_MODEL, ErrorCode.MODEL_NOT_READY, ErrorCode.MODEL_LOADING, ErrorCode.MODEL_UNAVAILABLE)
_BODY: Final = (
    ErrorCode.REQUEST_MALFORMED,
    ErrorCode.REQUEST_JSON_INVALID,
    ErrorCode.REQUEST_JSON_TOO_DEEP,
    ErrorCode.REQUEST_FIELD_INVALID,
    ErrorCode.REQUEST_ENCODING_UNSUPPORTED,
    ErrorCode.REQUEST_ENCODING_INVALID,
    ErrorCode.REQUEST_BODY_TOO_LARGE,
    ErrorCode.REQUEST_PARAMETER_INVALID,
)
_CONTROL: Final = (
    *_BODY,
    ErrorCode.MODEL_CONTROL_DISABLED,
    ErrorCode.MODEL_NAME_INVALID,
    ErrorCode.MODEL_NOT_FOUND,
)
_LOAD: Final = (
    *_CONTROL,
    *(code for code in ErrorCode if code.name.startswith(("MODEL_LOAD_", "MODEL_FILE_", "MODEL_CONFIG_"))),
    ErrorCode.MODEL_BACKEND_UNKNOWN,
    ErrorCode.STORAGE_FULL,
)
_INFER: Final = (
    *_BODY,
    *_READY_MODEL,
    ErrorCode.REQUEST_FIELD_MISSING,
    ErrorCode.REQUEST_HEADER_LENGTH_INVALID,
    ErrorCode.REQUEST_PARAMETER_RESERVED,
    ErrorCode.REQUEST_PARAMETER_UNSUPPORTED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.REQUEST_QUEUE_TIMEOUT,
    ErrorCode.DEVICE_UNAVAILABLE,
    ErrorCode.DEVICE_OUT_OF_MEMORY,
    *(code for code in ErrorCode if code.name.startswith(("TENSOR_", "ROUTING_", "RUNNER_"))),
)


def infer_operations(http: OpenInferenceHttp) -> tuple[Operation, ...]:
    """Return the two routes that carry almost all requests."""
    return tuple(
        Operation(("POST",), path, http.infer, "Run a model on tensors.", _INFER, "InferRequest", "InferResponse")
        for path in _model_paths("infer")
    )


def other_operations(http: OpenInferenceHttp) -> tuple[Operation, ...]:
    """Return all other routes of the protocol."""
    return (
        Operation(("GET",), "/v2", http.server_metadata, "Describe the server.", response="ServerMetadata"),
        Operation(("GET",), "/v2/health/live", http.server_live, "Is the server alive?", response="ServerLive"),
        Operation(("GET",), "/v2/health/ready", http.server_ready, "Is every model loaded?", response="ServerReady"),
        Operation(("GET",), "/v2/models/stats", http.statistics, "Count what all models did.", response="Statistics"),
        *_per_model("", http.model_metadata, "Describe a model.", _READY_MODEL, "ModelMetadata"),
        *_per_model("ready", http.model_ready, "Can a model answer now?", _MODEL, "ModelReady"),
        *_per_model("config", http.model_config, "Show a model's configuration.", _READY_MODEL, "ModelConfig"),
        *_per_model("stats", http.statistics, "Count what a model did.", _MODEL, "Statistics"),
        Operation(
            ("POST",),
            "/v2/repository/index",
            http.repository_index,
            "List the models.",
            _BODY,
            "RepositoryIndexRequest",
            "RepositoryIndex",
        ),
        Operation(
            ("POST",),
            "/v2/repository/models/{model}/load",
            http.repository_load,
            "Load a model.",
            _LOAD,
            "LoadRequest",
        ),
        Operation(
            ("POST",),
            "/v2/repository/models/{model}/unload",
            http.repository_unload,
            "Unload a model.",
            _CONTROL,
            "UnloadRequest",
        ),
        *_unsupported(),
    )


def _model_paths(suffix: str) -> tuple[str, str]:
    end = f"/{suffix}" if suffix else ""
    return f"/v2/models/{{model}}{end}", f"/v2/models/{{model}}/versions/{{version}}{end}"


def _per_model(
    suffix: str, endpoint: Endpoint, summary: str, errors: tuple[ErrorCode, ...], response: str
) -> Iterator[Operation]:
    for path in _model_paths(suffix):
        yield Operation(("GET",), path, endpoint, summary, errors, response=response)


def _unsupported() -> Iterator[Operation]:
    """Yield Triton's routes that this server lacks, so that clients learn that rather than "not found"."""
    both = ("GET", "POST")
    paths: list[tuple[tuple[str, ...], str]] = [
        (both, "/v2/logging"),
        (both, "/v2/trace/setting"),
        (both, "/v2/models/{model}/trace/setting"),
        *((("POST",), path) for verb in ("generate", "generate_stream") for path in _model_paths(verb)),
    ]
    for kind in ("system", "cuda"):
        root = f"/v2/{kind}sharedmemory"
        paths += [
            (("GET",), f"{root}/status"),
            (("GET",), f"{root}/region/{{region}}/status"),
            (("POST",), f"{root}/region/{{region}}/register"),
            (("POST",), f"{root}/unregister"),
            (("POST",), f"{root}/region/{{region}}/unregister"),
        ]
    for methods, path in paths:
        yield Operation(
            methods,
            path,
            unsupported,
            "Not supported.",
            (ErrorCode.REQUEST_FEATURE_UNSUPPORTED,),
            documented=False,
        )
