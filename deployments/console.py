"""What the command shows: stages, models and errors, as rich text on a terminal and as plain lines elsewhere."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from trygon.deployments.repository_client import IndexRow
from trygon.errors import InferenceError
from trygon.models.versions import ModelState

INDEX_COLUMNS = ("MODEL", "VERSION", "STATE", "REASON")
STATE_STYLES = {"READY": "green", "UNAVAILABLE": "red", "LOADING": "yellow", "UNLOADING": "yellow"}


class Progress:
    """Shows how a start goes: one moving line on a terminal, one line per change elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._status = Status("", console=self._console) if self._console.is_terminal else None
        self._seen: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done()

    def done(self) -> None:
        """Clear the moving line."""
        if self._status:
            self._status.stop()

    def stage(self, text: str) -> None:
        """Show what is being done now."""
        if self._status:
            self._status.update(Text(text))
        else:
            click.echo(text)

    def models(self, rows: Iterable[IndexRow]) -> None:
        """Show the models' states, where they have changed."""
        rows = list(rows)
        if self._status:
            ready = sum(row.state == ModelState.READY for row in rows)
            moving = [row.name for row in rows if row.is_moving]
            rest = f": {', '.join(moving)}" if moving else ""
            self._status.update(Text(f"Loading models, {ready} of {len(rows)} ready{rest}"))
            return
        for row in rows:
            if row.state and self._seen.get((row.name, row.version)) != row.state:
                self._seen[row.name, row.version] = row.state
                click.echo(f"{row.name} {row.version}: {row.state}".replace(" :", ":"))


def show_index(rows: Iterable[IndexRow], console: Console | None = None) -> None:
    """Print a table of models: name, version, state and reason."""
    show_table(INDEX_COLUMNS, [(row.name, row.version, row.state, row.reason) for row in rows], console)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console | None = None) -> None:
    """Print a table, drawn on a terminal and in aligned columns elsewhere."""
    console = console or Console(highlight=False)
    if console.is_terminal:
        table = Table(*columns)
        for row in rows:
            table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
        console.print(table)
        return
    lines = [columns, *([" ".join(cell.split()) for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_metadata(metadata: Mapping[str, Any]) -> None:
    """Print a model's metadata: a line on the model and a table of its tensors."""
    versions = ", ".join(str(version) for version in metadata.get("versions", ()))
    click.echo(f"{metadata.get('name')} ({metadata.get('platform')}), versions {versions}")
    rows = [
        (kind, str(tensor.get("name")), str(tensor.get("datatype")), str(tensor.get("shape")))
        for kind, key in (("input", "inputs"), ("output", "outputs"))
        for tensor in metadata.get(key, ())
    ]
    show_table(("TENSOR", "NAME", "DATATYPE", "SHAPE"), rows)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def show_error(error: InferenceError) -> None:
    """Print an error and its line of help on stderr."""
    click.echo(f"error: {error.code.name}: {error.message}", file=sys.stderr)
    click.echo(f"help: {error.code.help}", file=sys.stderr)
