"""Triton's model configuration message, generated from model_config.proto by `make proto`.

Its messages live in a descriptor pool of their own: tritonclient registers the same names in protobuf's default pool,
and one process may import both.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
"""The pool of all of Trygon's messages."""


def Default() -> DescriptorPool:  # noqa: N802 - generated code calls it by protobuf's name
    """Return Trygon's pool where generated code asks for protobuf's default pool."""
    return POOL
