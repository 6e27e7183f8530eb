"""Trygon: a multi-tenant, Triton-style model server on Ray Serve."""

from importlib.metadata import version as _version

__version__ = _version("trygon")
__all__ = ["__version__"]
