"""Ports of this machine: which are free, who holds the others, and which ones a server takes for itself."""

import errno
import ipaddress
import socket
import zlib
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import psutil

from trygon.errors import ErrorCode, InferenceError

FIRST_BLOCK = 20_000
BLOCKS = 24  # 24 blocks of 512 ports end at 32,288: below Linux' ephemeral ports, which begin at 32,768
BLOCK_PORTS = 512
REPLICA_PORTS = 200  # per protocol: more ingress replicas than one machine runs


class ServerPorts(NamedTuple):
    """The ports of one server that its callers never see."""

    haproxy_metrics: int
    haproxy_stats: int
    fallback_http: int
    fallback_grpc: int
    replica_http: range
    replica_grpc: range


def choose_ports(data_dir: Path, taken: Iterable[int] = ()) -> ServerPorts:
    """Choose a block of ports whose first ones are free; the same data directory starts looking at the same block.

    `taken` are ports that the server's callers will use.

    Raises: SYSTEM_PORT_IN_USE when every block is in use.
    """
    avoided = set(taken)
    preferred = zlib.crc32(str(data_dir).encode()) % BLOCKS
    for step in range(BLOCKS):
        start = FIRST_BLOCK + (preferred + step) % BLOCKS * BLOCK_PORTS
        block = range(start, start + BLOCK_PORTS)
        replica_http = block[4 : 4 + REPLICA_PORTS]
        replica_grpc = block[4 + REPLICA_PORTS : 4 + 2 * REPLICA_PORTS]
        needed = (*block[:4], replica_http[0], replica_grpc[0])
        if avoided.isdisjoint(block) and all(_bind_fault("0.0.0.0", port) is None for port in needed):  # noqa: S104 - HAProxy binds them so
            return ServerPorts(start, start + 1, start + 2, start + 3, replica_http, replica_grpc)
    raise InferenceError(
        ErrorCode.SYSTEM_PORT_IN_USE,
        f"no free block of {BLOCK_PORTS} ports between {FIRST_BLOCK} and {FIRST_BLOCK + BLOCKS * BLOCK_PORTS}",
    )


def require_free(host: str, port: int) -> None:
    """Check that a server can bind `host:port`.

    Raises: SYSTEM_PORT_IN_USE with the holder's pid and command where they can be found, SYSTEM_CONFIG_INVALID.
    """
    fault = _bind_fault(host, port)
    if fault is None:
        return
    if fault.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        by = f"pid {holder.pid}: {_command(holder)}" if holder else "a process that cannot be seen from here"
        context = {"port": port, "pid": holder.pid} if holder else {"port": port}
        raise InferenceError(ErrorCode.SYSTEM_PORT_IN_USE, f"port {port} is held by {by}", **context) from fault
    raise InferenceError(
        ErrorCode.SYSTEM_CONFIG_INVALID, f"cannot bind {host}:{port}: {fault.strerror or fault}", host=host, port=port
    ) from fault


def port_holder(port: int) -> psutil.Process | None:
    """Return the process that listens on `port`, or None where there is none or the system does not say."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        return None
    return None


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine reaches `host`.

    Raises: SYSTEM_CONFIG_INVALID when the name has no address.
    """
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise InferenceError(ErrorCode.SYSTEM_CONFIG_INVALID, f"host {host!r} has no address: {error}") from error
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)


@lru_cache(maxsize=4096)  # one entry per connection, asked for with each call
def is_local_peer(peer: str) -> bool:
    """Whether a gRPC peer, such as "ipv4:10.0.0.1:4711" or "ipv6:%5B::1%5D:4711", is on this machine."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    address = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    return address in _own_addresses()


@cache
def _own_addresses() -> frozenset[str]:
    return frozenset(entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries)


def _bind_fault(host: str, port: int) -> OSError | None:
    """Bind as HAProxy does, let go, and return what went wrong."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error
    return None


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200] or process.name()
    except psutil.Error:
        return "(its command line cannot be read)"
