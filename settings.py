"""Every setting of Trygon: frozen models, the only reader of environment variables and configuration files.

Precedence: command line (or the `args` of serve_config.yaml), then environment (`TRYGON_…`, nested with `__`), then the
file named by `--config` or `TRYGON_CONFIG`, then the defaults below. Secrets are never fields of these models.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from trygon.errors import ErrorCode, InferenceError

MEBIBYTE = 1024 * 1024


class Profile(StrEnum):
    """How careful the server is: `dev` and `test` let anyone in on loopback, `prod` lets nobody in unidentified."""

    DEV = "dev"
    TEST = "test"
    PROD = "prod"


class ModelControlMode(StrEnum):
    """Who decides what is loaded (Triton's --model-control-mode): all models at start, callers, or the folder."""

    NONE = "none"
    EXPLICIT = "explicit"
    POLL = "poll"


class RunnerSettings(BaseModel):
    """One runner deployment: what a replica gets, and how many replicas there may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cpus: float = Field(default=0.5, ge=0, description="CPUs that Ray reserves for a replica.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs that Ray reserves for a replica; fractions share one.")
    resources: dict[str, float] = Field(default_factory=dict, description="Other Ray resources, such as TPU.")
    threads: int = Field(default=0, ge=0, description="Threads per model instance; 0 means one per reserved CPU.")
    max_replicas: int = Field(default=4, ge=1, description="Most replicas that autoscaling starts.")
    target_ongoing_requests: float = Field(default=64, gt=0, description="Requests in flight that one replica is for.")
    max_ongoing_requests: int = Field(default=4096, ge=1, description="Requests in flight beyond which callers wait.")
    cohort_hold: bool = Field(
        default=True, description="Hold a batch for a moment for the callers just answered, where that pays."
    )
    drain_s: float = Field(default=10, ge=0, description="Longest wait for running work when a replica stops.")


class IngressSettings(BaseModel):
    """The ingress deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cpus: float = Field(default=0.1, ge=0, description="CPUs that Ray reserves for a replica.")
    min_replicas: int = Field(default=1, ge=1, description="Fewest replicas.")
    max_replicas: int = Field(default=1, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(default=256, gt=0, description="Requests in flight that one replica is for.")
    max_ongoing_requests: int = Field(default=10_000, ge=1, description="Requests in flight beyond which callers wait.")
    max_body_bytes: int = Field(
        default=64 * MEBIBYTE, ge=1, description="Largest request body after decompression (Triton's default: 64 MiB)."
    )
    local_only: bool = Field(
        default=False, description="Refuse gRPC calls from other machines: replicas listen on all interfaces."
    )
    request_timeout_s: float = Field(default=60, gt=0, description="Longest an inference may take, queueing included.")


class Settings(BaseSettings):
    """All settings of one server."""

    model_config = SettingsConfigDict(
        env_prefix="TRYGON_", env_nested_delimiter="__", frozen=True, extra="forbid", protected_namespaces=()
    )

    profile: Profile = Field(default=Profile.DEV, description="dev, test or prod.")
    server_name: str = Field(default="trygon", min_length=1, description="The name in the server's metadata.")
    host: str = Field(default="127.0.0.1", description="Address that HTTP and gRPC bind to.")
    http_port: int = Field(default=8000, ge=1, le=65535, description="Port of HTTP.")
    grpc_port: int = Field(default=8001, ge=1, le=65535, description="Port of gRPC.")
    data_dir: Path = Field(default=Path(".trygon"), description="Where the server keeps its state, logs and caches.")

    model_repository: tuple[str, ...] = Field(default=(), description="Folders that hold one folder per model.")
    model_control_mode: ModelControlMode = Field(default=ModelControlMode.NONE, description="none, explicit or poll.")
    load_model: tuple[str, ...] = Field(default=(), description="Models to load at start in explicit mode; * for all.")
    repository_poll_s: float = Field(default=15, gt=0, description="Seconds between two looks in poll mode.")
    load_timeout_s: float = Field(default=300, gt=0, description="Longest a model may take to load.")
    default_max_batch_size: int = Field(
        default=4, ge=0, description="max_batch_size of a model that can batch and does not say (Triton's default: 4)."
    )

    ingress: IngressSettings = Field(default_factory=IngressSettings, description="The ingress deployment.")
    runners: dict[str, RunnerSettings] = Field(
        default_factory=dict, description="Runner deployments by name, such as onnx-cpu; absent ones have the defaults."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the configuration file after command line and environment; read neither .env nor secret files."""
        del dotenv_settings, file_secret_settings
        path = os.environ.get("TRYGON_CONFIG")
        file = (YamlConfigSettingsSource(settings_cls, path),) if path else ()
        return (init_settings, env_settings, *file)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Return the settings with `given` ones on top.

        Raises: SYSTEM_CONFIG_INVALID, naming each setting that is wrong.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
            )
            raise InferenceError(ErrorCode.SYSTEM_CONFIG_INVALID, f"invalid settings: {faults}") from error

    def runner(self, name: str) -> RunnerSettings:
        """Return the settings of the runner deployment called `name`."""
        return self.runners.get(name, RunnerSettings())
