"""`serve run serve_config.yaml` on a Ray that somebody else started: the same application answers the same requests."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from trygon.deployments.data_directory import DataDirectory
from trygon.deployments.environment import apply, local_switches, mark, switches
from trygon.deployments.ports import choose_ports
from trygon.deployments.processes import end_processes
from trygon.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path(sys.executable).parent
START_LIMIT_S = 180


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a Ray of our own: the switches, ports of its own, and a mark to end it by."""
    directory = DataDirectory(tmp_path_factory.mktemp("serve"))
    with directory:
        directory.make_runtime_dir()
        wanted = chain(
            mark(directory.runtime_dir),
            switches(Settings.load(), cpus=2),
            local_switches(directory.runtime_dir, choose_ports(directory.path, ())),
        )
        variables = dict(os.environ)
        apply(wanted, variables)
        # The token of this Ray, and no other: a driver that names its cluster must say that it has one.
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
        variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0.5"
        yield variables
        end_processes(directory.runtime_dir, timeout_s=10)
        shutil.rmtree(directory.runtime_dir, ignore_errors=True)


@pytest.fixture(scope="module")
def ray_address(environment: dict[str, str]) -> str:
    ray_dir = Path(environment["TRYGON_RUNTIME_DIR"]) / "ray"
    started = run(
        ["ray", "start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={ray_dir}"],
        environment,
    )
    address = re.search(r"--address='([^']+)'", started)
    assert address, started
    return address[1]


@pytest.fixture(scope="module")
def http_url(
    environment: dict[str, str],
    ray_address: str,
    tmp_path_factory: pytest.TempPathFactory,
    spare_ports: tuple[int, int],
) -> str:
    """Deploy the committed file, with nothing changed but its ports; return where it answers."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    document["http_options"]["port"], document["grpc_options"]["port"] = spare_ports
    path = tmp_path_factory.mktemp("config") / "serve_config.yaml"
    path.write_text(yaml.safe_dump(document))
    run(["serve", "run", "--non-blocking", str(path)], environment | {"RAY_ADDRESS": ray_address})
    url = f"http://127.0.0.1:{spare_ports[0]}"
    wait_until_ready(url)
    return url


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run one of Ray's commands in the repository's folder, where the paths of serve_config.yaml begin."""
    program = str(BINARIES / command[0])
    done = subprocess.run(  # noqa: S603 - Ray's own commands
        [program, *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/q/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("the application did not become ready")


def digit() -> Any:
    return json.loads((ROOT / "examples" / "requests" / "digit.json").read_text())


@pytest.mark.parametrize("model", ["digits_onnx", "digits_tensorflow", "digits_litert"])
def test_the_application_answers_the_same_requests(http_url: str, model: str) -> None:
    answer = httpx.post(f"{http_url}/v2/models/{model}/infer", json=digit(), timeout=30)
    assert answer.status_code == 200, answer.text
    probabilities = answer.json()["outputs"][0]["data"]
    assert probabilities.index(max(probabilities)) == 9


def test_no_secret_is_in_the_file() -> None:
    text = (ROOT / "serve_config.yaml").read_text().lower()
    assert not re.search(r"(password|token|api_key|secret_key)\s*:", text)
