"""Ports: who holds them, which are chosen, and which hosts nobody else can reach."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trygon.deployments import ports
from trygon.deployments.ports import choose_ports, is_local_peer, is_loopback, port_holder, require_free
from trygon.errors import ErrorCode, InferenceError


@pytest.fixture
def held_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_free_port_passes(held_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
    require_free("127.0.0.1", free)
    assert free != held_port


def test_the_holder_of_a_port_is_named(held_port: int) -> None:
    with pytest.raises(InferenceError, match=rf"port {held_port} is held by pid {os.getpid()}: ") as caught:
        require_free("127.0.0.1", held_port)
    assert caught.value.code is ErrorCode.SYSTEM_PORT_IN_USE
    assert caught.value.context == {"port": held_port, "pid": os.getpid()}


def test_a_holder_that_cannot_be_seen_is_said_to_be_so(held_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(kind: str) -> list[object]:
        raise psutil.AccessDenied(msg=kind)

    monkeypatch.setattr(psutil, "net_connections", denied)
    with pytest.raises(InferenceError, match="a process that cannot be seen from here"):
        require_free("127.0.0.1", held_port)


def test_a_holder_whose_command_cannot_be_read_is_named_by_its_pid(
    held_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(process: psutil.Process) -> list[str]:
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "cmdline", gone)
    with pytest.raises(InferenceError, match=f"pid {os.getpid()}: .its command line cannot be read"):
        require_free("127.0.0.1", held_port)


def test_nobody_holds_a_free_port() -> None:
    assert port_holder(1) is None


@pytest.mark.parametrize("host", ["192.0.2.77", "no-such-host.invalid"])
def test_an_address_of_no_interface_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(InferenceError) as caught:
        require_free(host, 18_999)
    assert caught.value.code is ErrorCode.SYSTEM_CONFIG_INVALID


def test_the_same_data_directory_gets_the_same_ports() -> None:
    assert choose_ports(Path("/srv/a")) == choose_ports(Path("/srv/a"))


def test_a_block_that_callers_use_or_somebody_holds_is_passed_over() -> None:
    first = choose_ports(Path("/srv/a"))
    second = choose_ports(Path("/srv/a"), taken=[first.haproxy_stats])
    assert first.haproxy_metrics != second.haproxy_metrics
    with socket.create_server(("127.0.0.1", first.fallback_grpc)):
        assert choose_ports(Path("/srv/a")).haproxy_metrics != first.haproxy_metrics


def test_replicas_of_both_protocols_get_ports_of_their_own_below_the_ephemeral_ones() -> None:
    chosen = choose_ports(Path("/srv/a"))
    everything = [*chosen[:4], *chosen.replica_http, *chosen.replica_grpc]
    assert len(set(everything)) == len(everything)
    assert max(everything) < 32_768


def test_no_free_block_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "BLOCKS", 1)
    with pytest.raises(InferenceError, match="no free block") as caught:
        choose_ports(Path("/srv/a"), taken=[ports.FIRST_BLOCK])
    assert caught.value.code is ErrorCode.SYSTEM_PORT_IN_USE


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("192.0.2.1", False), ("::", False)]
)
def test_loopback_is_what_no_other_machine_reaches(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_host_without_an_address_is_a_wrong_setting() -> None:
    with pytest.raises(InferenceError) as caught:
        is_loopback("no-such-host.invalid")
    assert caught.value.code is ErrorCode.SYSTEM_CONFIG_INVALID


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711", "ipv6:[::1]:4711", "unix:/tmp/socket"])
def test_this_machines_own_addresses_are_local_peers(peer: str) -> None:
    assert is_local_peer(peer)


@pytest.mark.parametrize("peer", ["ipv4:203.0.113.9:4711", "ipv6:%5B2001:db8::9%5D:4711", "ipv4:", "", "127.0.0.1"])
def test_others_are_not(peer: str) -> None:
    assert not is_local_peer(peer)
