"""What the documentation shows works: its commands and programs are run as they stand, against the shared server."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from trygon.cli import main, serve
from trygon.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    page.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "kuberay/**/*.md")
    for page in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^    (curl .*)$", re.MULTILINE)
DEADLINE_S = 120


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall((ROOT / page).read_text()) if found == language]


def shell_commands() -> Iterator[str]:
    for page in PAGES:
        yield from blocks(page, "sh")
        yield from INDENTED.findall((ROOT / page).read_text())


def console_lines() -> Iterator[str]:
    """Yield every command that a console block shows, and every `make …` and `trygon …` of an indented block."""
    for page in PAGES:
        for text in blocks(page, "console"):
            yield from (line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
        yield from re.findall(r"^    ((?:make|(?:\S*/)?trygon) .*)$", (ROOT / page).read_text(), re.MULTILINE)


def trygon_arguments() -> Iterator[list[str]]:
    for line in console_lines():
        for command in re.findall(r"(?:^|[\s(])(?:\S*/)?trygon( [^)\"|;&]*)?", line):
            yield shlex.split(command, comments=True)


@pytest.fixture
def at_server(server: Any) -> Any:
    """Put the shared server's address in the place of the default one."""

    def replace(text: str) -> str:
        return text.replace("http://127.0.0.1:8000", server.http_url).replace("127.0.0.1:8001", server.grpc_url)

    return replace


def test_the_documentation_has_something_to_run() -> None:
    assert blocks(Path("README.md"), "python")
    assert len(list(shell_commands())) >= 2
    assert ["serve", "--model-repository", "repository"] in list(trygon_arguments())


@pytest.mark.parametrize("command", list(shell_commands()))
def test_a_shell_command_gets_its_answer(at_server: Any, command: str) -> None:
    shell = shutil.which("bash")
    assert shell
    script = f"set -euo pipefail\n{at_server(command)}"
    done = subprocess.run(  # noqa: S603 - what the documentation asks its readers to run
        [shell, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["outputs"]
    assert output["data"].index(max(output["data"])) == 9


def test_the_python_programs_of_the_readme_read_the_digit(server: Any, at_server: Any) -> None:
    programs = blocks(Path("README.md"), "python")
    # As the page says: a driver beside the server has RAY_AUTH_MODE=token and the address that server.json names.
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_ADDRESS": server.ray_address}
    done = subprocess.run(  # noqa: S603 - what the documentation asks its readers to run
        [sys.executable, "-c", at_server("\n".join(programs))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("a ")] == ["a 9"] * len(programs)


def test_the_address_for_drivers_stands_where_the_readme_says(server: Any) -> None:
    assert json.loads((server.data_dir / "server.json").read_text())["ray_address"] == server.ray_address


@pytest.mark.parametrize("arguments", list(trygon_arguments()), ids=" ".join)
def test_a_trygon_command_has_these_options(arguments: list[str]) -> None:
    command: click.Command = main
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        name, found, arguments = command.resolve_command(context, arguments)
        assert found, name
        command = found
    command.make_context(command.name, arguments, parent=context)


def test_the_table_of_options_is_that_of_the_command() -> None:
    options = {option for parameter in serve.params for option in parameter.opts}
    rows = re.findall(r"^\| (`--.*?`) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"--[a-z-]+", " ".join(rows)))
    assert named
    assert named <= options


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {line.split()[1] for line in console_lines() if line.startswith("make ")}
    assert "serve" in shown
    assert shown <= targets


def test_every_error_has_its_place_in_the_documentation(http: httpx.Client) -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    for code in ErrorCode:
        assert f'<a id="{code.name.lower()}"></a>`{code.name}` | {code.http_status} ' in page
    url = http.get("/v2/models/nosuch").json()["documentationUrl"]
    assert f'<a id="{url.partition("#")[2]}"></a>' in page


def test_every_link_within_the_documentation_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
