"""Version policy: which of a model's versions its configuration wants, and what is no version at all."""

import re
from collections.abc import Iterable
from typing import Final

from trygon.models.proto.model_config_pb2 import ModelVersionPolicy
from trygon.models.routing import MAX_VERSION

_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def parse_version_folder(name: str) -> int | None:
    """Return the version that a folder of this name holds; None for other folders ("0", "01", "v1", "1.bak")."""
    if not _VERSION.fullmatch(name):
        return None
    version = int(name)
    return version if version <= MAX_VERSION else None


def wanted_versions(policy: ModelVersionPolicy, available: Iterable[int]) -> tuple[int, ...]:
    """Return the available versions that the policy asks for, ascending; the latest one if it says nothing.

    Source: Triton's model configuration, "Version Policy". `latest {}` without a number means one.
    """
    versions = sorted(set(available))
    match policy.WhichOneof("policy_choice"):
        case "all":
            return tuple(versions)
        case "specific":
            asked = set(policy.specific.versions)
            return tuple(version for version in versions if version in asked)
        case _:
            return tuple(versions[-(policy.latest.num_versions or 1) :])


def absent_versions(policy: ModelVersionPolicy, available: Iterable[int]) -> tuple[int, ...]:
    """Return the versions that the policy names and that are not available, ascending."""
    return tuple(sorted(set(policy.specific.versions) - set(available)))
