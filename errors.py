"""The public error contract: every error code, and the one exception that carries it.

Data flow, and where each category belongs:

    bytes --(REQUEST_)--> tensors --(TENSOR_)--> admitted --(AUTH_, TENANT_, QUOTA_)--> routed --(MODEL_, ROUTING_)-->
    queued --(RUNNER_)--> run --(DEVICE_, RUNNER_)--> answer

This module imports the standard library only: errors cross process boundaries, and whoever receives one must be
able to read it.
"""

from enum import Enum, unique
from typing import Any, NamedTuple, Self

DOCUMENTATION_URL = "docs/errors.md"
"""Relative to the project's repository: the documentation has no host of its own yet."""


class ErrorInfo(NamedTuple):
    """What is fixed about an error code.

    `http_status` is the status of every HTTP answer that carries the code, `retryable` says whether the very same
    request may succeed later, `help` is one line on what the caller can do.
    """

    http_status: int
    retryable: bool
    help: str


@unique
class ErrorCode(Enum):
    """Every error that Trygon answers with. The member's name is the public code and never changes its meaning."""

    # The request as bytes.
    REQUEST_MALFORMED = ErrorInfo(400, False, "Send a well-formed request: the message names the place of the fault.")
    REQUEST_JSON_INVALID = ErrorInfo(400, False, "Send valid UTF-8 JSON; NaN and Infinity are not JSON.")
    REQUEST_JSON_TOO_DEEP = ErrorInfo(400, False, "Nest JSON at most 100 levels deep.")
    REQUEST_FIELD_MISSING = ErrorInfo(400, False, "Add the field that the message names.")
    REQUEST_FIELD_INVALID = ErrorInfo(400, False, "Give the named field a value of the documented type.")
    REQUEST_HEADER_INVALID = ErrorInfo(400, False, "Correct the header that the message names.")
    REQUEST_HEADER_LENGTH_INVALID = ErrorInfo(
        400, False, "Inference-Header-Content-Length must be the JSON's length in bytes within the decompressed body."
    )
    REQUEST_ENCODING_UNSUPPORTED = ErrorInfo(415, False, "Compress the body with gzip or deflate, or not at all.")
    REQUEST_ENCODING_INVALID = ErrorInfo(400, False, "The body is not what Content-Encoding says it is.")
    REQUEST_BODY_TOO_LARGE = ErrorInfo(413, False, "Send a smaller body, or raise the server's max_body_bytes.")
    REQUEST_PARAMETER_INVALID = ErrorInfo(400, False, "Correct the parameter that the message names.")
    REQUEST_PARAMETER_RESERVED = ErrorInfo(400, False, "Parameter names that start with 'triton_' are reserved.")
    REQUEST_PARAMETER_UNSUPPORTED = ErrorInfo(501, False, "Leave the parameter out: this server lacks the feature.")
    REQUEST_ROUTE_UNKNOWN = ErrorInfo(404, False, "See GET /openapi for the routes of this server.")
    REQUEST_METHOD_NOT_ALLOWED = ErrorInfo(405, False, "Use a method that the Allow header lists.")
    REQUEST_CANCELLED = ErrorInfo(499, False, "The caller left before the answer was ready.")
    REQUEST_TIMEOUT = ErrorInfo(504, True, "Allow more time, or send less work at once.")
    REQUEST_QUEUE_TIMEOUT = ErrorInfo(503, True, "The model is busy: send again later, or raise the queue timeout.")
    REQUEST_FEATURE_UNSUPPORTED = ErrorInfo(501, False, "This server does not have the feature that was asked for.")
    REQUEST_CONFLICT = ErrorInfo(409, False, "Read the current state, then decide again.")

    # The request as tensors.
    TENSOR_NAME_DUPLICATE = ErrorInfo(400, False, "Name each tensor once.")
    TENSOR_INPUT_UNKNOWN = ErrorInfo(400, False, "Send only the inputs that the model's metadata lists.")
    TENSOR_INPUT_MISSING = ErrorInfo(400, False, "Send every input that the model's metadata lists.")
    TENSOR_OUTPUT_UNKNOWN = ErrorInfo(400, False, "Ask only for outputs that the model's metadata lists.")
    TENSOR_DATATYPE_UNKNOWN = ErrorInfo(400, False, "Use a KServe datatype, such as FP32, INT64, BOOL or BYTES.")
    TENSOR_DATATYPE_MISMATCH = ErrorInfo(400, False, "Send the datatype that the model's metadata lists.")
    TENSOR_SHAPE_INVALID = ErrorInfo(400, False, "Dimensions, and their product, lie between 0 and 2^63-1.")
    TENSOR_SHAPE_MISMATCH = ErrorInfo(400, False, "Send the shape of the model's metadata; -1 is any size.")
    TENSOR_BATCH_TOO_LARGE = ErrorInfo(400, False, "Send at most max_batch_size rows in one request.")
    TENSOR_BATCH_MISMATCH = ErrorInfo(400, False, "All inputs of one request have the same first dimension.")
    TENSOR_SIZE_MISMATCH = ErrorInfo(400, False, "Send exactly as many elements as shape and datatype ask for.")
    TENSOR_DATA_MISSING = ErrorInfo(400, False, "Give each tensor its data, in JSON or in the binary part.")
    TENSOR_DATA_INVALID = ErrorInfo(400, False, "Give values that the tensor's datatype can hold.")
    TENSOR_DATA_LEFT_OVER = ErrorInfo(400, False, "Send no bytes beyond those that the tensors describe.")

    # Who asks.
    AUTH_REQUIRED = ErrorInfo(401, False, "Send an API key or a bearer token.")
    AUTH_CREDENTIALS_INVALID = ErrorInfo(401, False, "Check the API key or token.")
    AUTH_TOKEN_EXPIRED = ErrorInfo(401, False, "Fetch a new token.")
    AUTH_FORBIDDEN = ErrorInfo(403, False, "Ask an administrator for the role that the message names.")
    AUTH_PEER_REFUSED = ErrorInfo(403, False, "Call from the server's own machine, through its gRPC port.")
    TENANT_NOT_FOUND = ErrorInfo(404, False, "Name a tenant that your identity may act for.")
    TENANT_SUSPENDED = ErrorInfo(403, False, "Ask the operator to resume the tenant.")
    QUOTA_EXCEEDED = ErrorInfo(429, True, "Wait until the period ends, or ask for a larger quota.")
    QUOTA_RATE_EXCEEDED = ErrorInfo(429, True, "Send more slowly: Retry-After says when to try again.")
    QUOTA_CONCURRENCY_EXCEEDED = ErrorInfo(429, True, "Keep fewer requests in flight.")

    # What is asked for.
    MODEL_NOT_FOUND = ErrorInfo(404, False, "See POST /v2/repository/index for the models of this server.")
    MODEL_VERSION_NOT_FOUND = ErrorInfo(404, False, "See the model's metadata for its versions.")
    MODEL_VERSION_INVALID = ErrorInfo(400, False, "A version is a positive integer.")
    MODEL_NAME_INVALID = ErrorInfo(
        400, False, "Use letters, digits, '_', '.' and '-', and begin with none of the last two."
    )
    MODEL_NOT_READY = ErrorInfo(503, True, "Wait until the model is READY, or see its reason in the repository index.")
    MODEL_LOADING = ErrorInfo(503, True, "The model is being loaded: try again in a moment.")
    MODEL_UNAVAILABLE = ErrorInfo(503, False, "The model could not be loaded: its reason is in the repository index.")
    MODEL_LOAD_FAILED = ErrorInfo(400, False, "Correct the model's files or configuration, then load it again.")
    MODEL_LOAD_TIMEOUT = ErrorInfo(504, True, "The load goes on or was given up: see the repository index.")
    MODEL_FILE_MISSING = ErrorInfo(400, False, "Put the model file where the model repository's layout expects it.")
    MODEL_FILE_INVALID = ErrorInfo(400, False, "The runtime cannot read the model file: the message says why.")
    MODEL_CONFIG_INVALID = ErrorInfo(400, False, "Correct config.pbtxt: the message names the field.")
    MODEL_CONFIG_MISMATCH = ErrorInfo(400, False, "Make the configuration agree with the model file.")
    MODEL_CONFIG_UNSUPPORTED = ErrorInfo(501, False, "Leave out the setting that the message names.")
    MODEL_BACKEND_UNKNOWN = ErrorInfo(400, False, "Use a backend of this server: onnxruntime, tensorflow or litert.")
    MODEL_CONTROL_DISABLED = ErrorInfo(400, False, "Start the server with --model-control-mode explicit.")
    MODEL_REPOSITORY_INVALID = ErrorInfo(400, False, "Name an existing folder that holds one folder per model.")
    MODEL_REPOSITORY_CONFLICT = ErrorInfo(409, False, "Give each model a name of its own across all repositories.")
    ROUTING_NO_RUNNER = ErrorInfo(503, True, "No replica can run this model yet: try again in a moment.")
    ROUTING_LABEL_UNKNOWN = ErrorInfo(404, False, "Use a label that the model's configuration defines.")

    # Running it.
    RUNNER_QUEUE_FULL = ErrorInfo(503, True, "The model's queue is full: send again later.")
    RUNNER_DIED = ErrorInfo(503, True, "The replica died while it worked: send again.")
    RUNNER_OVERLOADED = ErrorInfo(503, True, "The server is overloaded: send again later.")
    RUNNER_EXECUTION_FAILED = ErrorInfo(500, False, "The runtime failed on this input: the message holds its reason.")
    RUNNER_INPUT_REJECTED = ErrorInfo(400, False, "The runtime refused this input: the message holds its reason.")
    RUNNER_OUTPUT_INVALID = ErrorInfo(500, False, "The model gave an output that its metadata does not describe.")
    DEVICE_UNAVAILABLE = ErrorInfo(503, True, "No device of the kind that the model asks for is free.")
    DEVICE_UNSUPPORTED = ErrorInfo(400, False, "Ask for a device that this server's runtimes support.")
    DEVICE_OUT_OF_MEMORY = ErrorInfo(503, True, "Send a smaller batch, or give the runner more memory.")

    # What stands behind it.
    STORAGE_UNAVAILABLE = ErrorInfo(503, True, "The model store does not answer: try again later.")
    STORAGE_NOT_FOUND = ErrorInfo(404, False, "Check the location.")
    STORAGE_FULL = ErrorInfo(507, True, "Free space in the data directory.")
    SYSTEM_INTERNAL = ErrorInfo(500, False, "This is a fault of the server: report it with the request id.")
    SYSTEM_NOT_READY = ErrorInfo(503, True, "The server is starting: try again in a moment.")
    SYSTEM_SHUTTING_DOWN = ErrorInfo(503, True, "The server is stopping: send to another one.")
    SYSTEM_CONFIG_INVALID = ErrorInfo(400, False, "Correct the setting that the message names.")
    SYSTEM_PORT_IN_USE = ErrorInfo(409, False, "Stop the process that holds the port, or choose another port.")
    SYSTEM_START_FAILED = ErrorInfo(500, False, "See the log in the data directory.")

    @property
    def http_status(self) -> int:
        """HTTP status of every answer with this code."""
        return self.value.http_status

    @property
    def retryable(self) -> bool:
        """Whether the very same request may succeed later."""
        return self.value.retryable

    @property
    def help(self) -> str:
        """One line on what the caller can do."""
        return self.value.help

    @property
    def documentation_url(self) -> str:
        """Where docs/errors.md describes this code."""
        return f"{DOCUMENTATION_URL}#{self.name.lower()}"


class InferenceError(Exception):
    """An error with a public code. Survives pickling with code, message and context.

    `context` is data about what failed (names, sizes, limits), safe to show to the caller and made of JSON values.
    Chain the technical reason with `raise … from cause`; the cause itself stays in this process.
    """

    def __init__(self, code: ErrorCode, message: str, /, **context: Any) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.context: dict[str, Any] = context

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.code.name, self.message, self.context)

    @classmethod
    def restore(cls, code: str, message: str, context: dict[str, Any]) -> Self:
        """Rebuild an error from its public parts; a code of a newer server becomes SYSTEM_INTERNAL."""
        known = ErrorCode.__members__.get(code, ErrorCode.SYSTEM_INTERNAL)
        return cls(known, message, **context)


def _restore(cls: type[InferenceError], code: str, message: str, context: dict[str, Any]) -> InferenceError:
    return cls.restore(code, message, context)
