"""A client of a running server: health, and the model repository's verbs of the v2 protocol over HTTP."""

from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import grpc
import httpx

from trygon.errors import ErrorCode, InferenceError
from trygon.models.versions import ModelState

CONTROL_TIMEOUT_S = 600
NOT_ASKED_FOR = "unloaded"  # Triton's reason, too


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One row of the repository index. An empty `state` means that the model was never loaded."""

    name: str
    version: str
    state: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """Return the row as the protocol's JSON object."""
        return asdict(self)

    @property
    def is_moving(self) -> bool:
        """Whether the state is about to change."""
        return self.state in {ModelState.LOADING, ModelState.UNLOADING}

    @property
    def has_failed(self) -> bool:
        """Whether the model was asked for and cannot be had; one that nobody asked for is UNAVAILABLE, too."""
        return self.state == ModelState.UNAVAILABLE and self.reason != NOT_ASKED_FOR


class RepositoryClient:
    """Asks one server.

    Every method raises the server's own error as InferenceError, and SYSTEM_NOT_READY when nothing answers.
    """

    def __init__(self, url: str, *, timeout_s: float = 10) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)
        except httpx.InvalidURL as error:
            raise InferenceError(ErrorCode.REQUEST_FIELD_INVALID, f"{url!r} is no URL: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether every model that should be loaded has a live replica."""
        try:
            return self._http.get("/q/health/ready").is_success
        except httpx.HTTPError:
            return False

    def index(self) -> list[IndexRow]:
        """Return every model version that the server knows of."""
        rows = self._ask("POST", "/v2/repository/index", {})
        return [IndexRow(*(str(row.get(key, "")) for key in ("name", "version", "state", "reason"))) for row in rows]

    def load(self, model: str) -> None:
        """Load or reload a model and wait for it."""
        self._ask("POST", f"/v2/repository/models/{quote(model, safe='')}/load", {}, timeout_s=CONTROL_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Unload all versions of a model."""
        self._ask("POST", f"/v2/repository/models/{quote(model, safe='')}/unload", {}, timeout_s=CONTROL_TIMEOUT_S)

    def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's metadata: name, versions, platform, inputs and outputs."""
        path = f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
        metadata: dict[str, Any] = self._ask("GET", path)
        return metadata

    def _ask(self, method: str, path: str, body: object = None, *, timeout_s: float | None = None) -> Any:
        extra: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
        try:
            response = self._http.request(method, path, json=body, **extra)
        except httpx.TimeoutException as error:
            raise InferenceError(ErrorCode.REQUEST_TIMEOUT, f"{self.url} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InferenceError(
                ErrorCode.SYSTEM_NOT_READY, f"no server answers at {self.url}: {error}", url=self.url
            ) from error
        try:
            answer = response.json() if response.content else None
        except ValueError:
            answer = None
        if response.is_success:
            return answer
        said = answer if isinstance(answer, dict) else {}
        message = said.get("message") or said.get("error") or f"HTTP {response.status_code} without a reason"
        context = said.get("context")
        raise InferenceError.restore(
            str(said.get("errorCode", "")), str(message), context if isinstance(context, dict) else {}
        )


def grpc_is_live(target: str, *, timeout_s: float = 1) -> bool:
    """Whether the server at `target` (host:port) answers ServerLive over gRPC."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=timeout_s)
        except grpc.RpcError:
            return False
    return True
