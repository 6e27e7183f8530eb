"""What the servers are asked to do: five models, the constant answer, and the rows that are sent to them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
DISTINCT_ROWS: Final = 8
"""Different rows that connections send, so that an answer meant for another caller is seen."""
CONSTANT: Final = "constant"
"""A GET of v2/health/live: what a server's front gives without any model."""


@dataclass(frozen=True, slots=True)
class Work:
    """One model: `shape` is that of a row, `max_batch_size` 0 means that it never batches.

    `http` and `grpc` are the numbers of requests in flight that are measured.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    max_batch_size: int
    http: tuple[int, ...]
    grpc: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Size of one float32 row."""
        return int(np.prod(self.shape)) * 4

    def rows(self) -> Array:
        """Return the rows to send, float32 [DISTINCT_ROWS, *shape]; always the same ones."""
        count = 2 if self.row_bytes > 2**20 else DISTINCT_ROWS
        random = np.random.default_rng(7)
        return random.standard_normal((count, *self.shape), dtype=np.float32)


WORKS: Final = (
    Work("tiny", "tiny MLP, 64 → 10", (64,), 64, (1, 16, 64, 128), (1, 16, 64, 128)),
    Work("mlp", "1 ms MLP, 64 → 1600 → 1600 → 10", (64,), 64, (1, 16, 64, 128), (64,)),
    Work("device", "20 ms device, batch ≤ 32", (64,), 32, (1, 8, 32, 64, 128), (1, 64)),
    Work("pitch", "basic-pitch, 2 s of audio", (43844, 1), 4, (1, 16)),
    Work("identity", "identity, 16 MiB", (4 * 2**20,), 0, (1, 4)),
)
BY_NAME: Final = {work.name: work for work in WORKS}
