"""What is measured with a server: every combination of work, transport and requests in flight that it can do."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from field.peers import Peer
from field.peers.base import HTTP, JSON
from field.works import CONSTANT, WORKS, Work

POISSON_RATE = 1120.0
"""Requests per second of the open loop: 70 % of what a device of 20 ms and 32 rows can do at most."""
POISSON = "http, Poisson 70 %"
POISSON_CONNECTIONS = 512
CONSTANT_WORK = Work(CONSTANT, "constant answer (v2/health/live)", (), 0, (1, 64))


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement of one server: `in_flight` connections or requests; open loop if there is a `rate`."""

    work: Work
    transport: str
    in_flight: int
    rate: float = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What the caller wants to be measured; empty is everything."""

    works: Collection[str] = ()
    transports: Collection[str] = ()
    in_flight: Collection[int] = ()

    def takes(self, cell: Cell) -> bool:
        """Say whether a cell is wanted."""
        return (
            (not self.works or cell.work.name in self.works)
            and (not self.transports or cell.transport in self.transports)
            and (not self.in_flight or cell.in_flight in self.in_flight or bool(cell.rate))
        )


def cells(peer: Peer, choice: Choice) -> Iterator[Cell]:
    """Yield the wanted cells of a peer, works in order."""
    found = (cell for work in WORKS if not peer.cannot(work) for cell in _of_work(peer, work))
    constant = [Cell(CONSTANT_WORK, HTTP, in_flight) for in_flight in CONSTANT_WORK.http] if peer.constant else []
    yield from (cell for cell in (*found, *constant) if choice.takes(cell))


def _of_work(peer: Peer, work: Work) -> Iterator[Cell]:
    for transport in peer.formats:
        if transport == HTTP:
            yield from (Cell(work, transport, in_flight) for in_flight in work.http)
        elif transport == JSON:
            # JSON is compared at one place: it says what the binary format is worth.
            if work.name == "tiny":
                yield from (Cell(work, transport, in_flight) for in_flight in (1, 64))
        else:
            yield from (Cell(work, transport, in_flight) for in_flight in work.grpc)
    if work.name == "device" and peer.poisson:
        yield Cell(work, POISSON, POISSON_CONNECTIONS, POISSON_RATE)
