"""What control, runners and ingress tell each other through handles: plain data that pickles."""

from dataclasses import dataclass
from typing import NamedTuple

from trygon.errors import InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.statistics import ModelStatistics
from trygon.models.tensors import InferRequest, InferResponse
from trygon.models.versions import VersionSpec, VersionStatus


@dataclass(frozen=True, slots=True)
class Desired:
    """The versions that every replica of one runner deployment should have loaded; a higher revision is newer.

    `term` is the control replica's own: revisions of an earlier term are void. `served` says that other replicas serve,
    so that a new one may take its time before it takes requests.
    """

    term: str
    revision: int
    specs: tuple[VersionSpec, ...]
    served: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What lives in one replica of a runner deployment; `specs` is what it was told to load.

    Reports of one replica may arrive out of order: a higher `sequence` is newer. `serving` says whether calls reach the
    replica: one that is still starting may have models, and nobody can use them.
    """

    replica: str
    runner: str
    specs: tuple[VersionSpec, ...]
    statuses: tuple[VersionStatus, ...]
    statistics: tuple[ModelStatistics, ...]
    sequence: int = 0
    serving: bool = True


@dataclass(frozen=True, slots=True)
class Routes:
    """What the ingress replicas know of all models.

    `missing` names the models that should be loaded and cannot serve, with the reason.
    """

    term: str
    revision: int
    rows: tuple[RoutedVersion, ...]
    missing: dict[str, str]


class InferCall(NamedTuple):
    """One or more requests for the same loaded version; `generation` is the one they were checked against.

    `id` is the call's own: requests of it are given up by their place in it.
    """

    id: str
    model: str
    version: int
    generation: str
    requests: tuple[InferRequest, ...]


InferOutcome = InferResponse | InferenceError
"""Each request of a call has its own outcome, so an error travels as a value."""
