"""Ray's switches: what is set, what the user keeps, and what keeps two servers apart."""

from pathlib import Path

from trygon.deployments.data_directory import DataDirectory
from trygon.deployments.environment import apply, available_cpus, local_switches, mark, switches
from trygon.deployments.ports import ServerPorts
from trygon.settings import Settings

PORTS = ServerPorts(20_000, 20_001, 20_002, 20_003, range(20_004, 20_204), range(20_204, 20_404))
LARGEST_SOCKET_PATH = 107


def test_haproxy_and_the_throughput_mode_are_on() -> None:
    environment: dict[str, str] = {}
    apply(switches(Settings(), cpus=2), environment)
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert environment["RAY_SERVE_HAPROXY_NBTHREAD"] == "1"


def test_what_the_user_has_set_stays() -> None:
    environment = {"RAY_SERVE_HAPROXY_NBTHREAD": "7"}
    apply(switches(Settings(), cpus=8), environment)
    assert environment["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"


def test_the_mark_is_never_inherited_from_another_server(tmp_path: Path) -> None:
    environment = {"TRYGON_RUNTIME_DIR": "/srv/other"}
    apply(mark(tmp_path), environment)
    assert environment == {"TRYGON_RUNTIME_DIR": str(tmp_path)}


def test_every_switch_has_one_value_and_a_reason(tmp_path: Path) -> None:
    wanted = [*switches(Settings(), cpus=2), *mark(tmp_path), *local_switches(tmp_path, PORTS)]
    assert len({switch.name for switch in wanted}) == len(wanted)
    assert all(switch.value and switch.reason for switch in wanted)


def test_no_port_is_used_twice_and_every_file_lies_in_the_runtime_directory(tmp_path: Path) -> None:
    values = [switch.value for switch in local_switches(tmp_path, PORTS)]
    ports = [value for value in values if value.isdigit()]
    assert sorted(ports) == ["20000", "20001", "20002", "20003", "20004", "20204", "20204", "20404"]
    assert all(Path(value).is_relative_to(tmp_path) for value in values if not value.isdigit())


def test_haproxy_can_bind_its_sockets_whatever_the_data_directory_is_called() -> None:
    runtime_dir = DataDirectory(Path("/srv") / ("long" * 50)).runtime_dir
    node = "n" * 56  # Ray Serve puts the node's id in between
    for switch in local_switches(runtime_dir, PORTS):
        if switch.value.endswith(".sock"):
            path = Path(switch.value)
            bound = path.parent / node / f"{path.name}.4194304.tmp"  # HAProxy binds this, then renames it
            assert len(str(bound)) <= LARGEST_SOCKET_PATH


def test_grpc_takes_no_more_than_the_largest_body_needs() -> None:
    environment: dict[str, str] = {}
    apply(switches(Settings(ingress={"max_body_bytes": 1000}), cpus=2), environment)
    assert environment["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"] == "4000"


def test_at_least_one_cpu_is_available() -> None:
    assert available_cpus() >= 1
