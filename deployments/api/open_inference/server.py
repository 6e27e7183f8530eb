"""What the server says of itself: its name, its version and the extensions of KServe v2 that it has."""

from typing import Final

from trygon import __version__

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)
"""Triton's extensions that are there. Clients ask for others only if they find them here."""

VERSION: Final = __version__
