"""The `trygon` command: reads what was asked for, and says how it went (0 as asked, 1 failed, 2 asked wrongly).

What a command needs is imported when it runs: `trygon --help` must not wait for it.
"""

import logging
import os
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from trygon.errors import ErrorCode, InferenceError

EXIT_FAILED = 1
EXIT_USAGE = 2
DEFAULT_URL = "http://127.0.0.1:8000"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

P = ParamSpec("P")

logger = logging.getLogger("trygon")
logger.addHandler(logging.NullHandler())  # without a log of its own, a traceback goes nowhere rather than to stderr


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn an error into its code, message and line of help on stderr, and the exit code; never into a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except InferenceError as error:
            known = error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            logger.exception("the command failed")
            known = InferenceError(ErrorCode.SYSTEM_INTERNAL, f"{type(error).__name__}: {error}")
        else:
            return
        from trygon.deployments.console import show_error  # noqa: PLC0415 - see the module's docstring

        show_error(known)
        sys.exit(EXIT_USAGE if known.code is ErrorCode.SYSTEM_CONFIG_INVALID else EXIT_FAILED)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trygon")
def main() -> None:
    """Serve ONNX, TensorFlow and LiteRT models over HTTP and gRPC."""


@main.command()
@click.option("--model-repository", multiple=True, metavar="PATH", help="Folder that holds models; may be repeated.")
@click.option(
    "--model-control-mode",
    type=click.Choice(["none", "explicit", "poll"]),
    help="Who decides what is loaded: all at start, callers, or the folder.  [default: none]",
)
@click.option(
    "--load-model", multiple=True, metavar="NAME", help="Load at start in explicit mode; may be repeated, * is all."
)
@click.option(
    "--repository-poll-secs", type=float, metavar="SECONDS", help="Time between two looks in poll mode.  [default: 15]"
)
@click.option("--host", metavar="ADDRESS", help="Address of HTTP and gRPC.  [default: 127.0.0.1]")
@click.option("--http-port", type=int, metavar="PORT", help="Port of HTTP.  [default: 8000]")
@click.option("--grpc-port", type=int, metavar="PORT", help="Port of gRPC.  [default: 8001]")
@click.option("--server-name", metavar="NAME", help="Name in the server's metadata.  [default: trygon]")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="YAML file of settings; options and TRYGON_ variables come first.",
)
@click.option(
    "--profile",
    type=click.Choice(["dev", "test", "prod"]),
    help="How careful to be: dev and test let anyone in, on loopback only.  [default: dev]",
)
@click.option("--data-dir", metavar="PATH", help="Where state, logs and caches go.  [default: .trygon]")
@click.option("--address", default="", metavar="ADDRESS", help="Join the Ray cluster at this address, or 'auto'.")
@click.option("--exit-on-error", is_flag=True, help="End with code 1 when a model cannot be loaded.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="INFO",
    show_default=True,
    help="Least level in the logs.",
)
@reports_errors
def serve(config: Path | None, address: str, log_level: str, *, exit_on_error: bool, **given: Any) -> None:
    """Start a server and run it until Ctrl-C or SIGTERM."""
    from trygon.deployments.console import Progress  # noqa: PLC0415 - see the module's docstring
    from trygon.deployments.server import Launch, Server, StopSignals  # noqa: PLC0415 - see the module's docstring
    from trygon.settings import Settings  # noqa: PLC0415 - see the module's docstring

    signals = StopSignals()
    if config:
        os.environ["TRYGON_CONFIG"] = str(config.absolute())
    given["repository_poll_s"] = given.pop("repository_poll_secs")
    settings = Settings.load(**{name: value for name, value in given.items() if value not in (None, ())})
    with Progress() as progress:
        Server(settings, Launch(address, exit_on_error, log_level), signals, progress).run()


@main.command()
@click.option("--config", "config_file", metavar="FILE", help="Settings as YAML.")
@reports_errors
def environment(config_file: str | None) -> None:
    """Print the switches of Ray Serve that every node of a cluster needs before Ray starts there.

    Use it as: eval "$(trygon environment)"
    """
    from trygon.deployments.environment import available_cpus, switches  # noqa: PLC0415 - see the module's docstring
    from trygon.settings import Settings  # noqa: PLC0415 - see the module's docstring

    if config_file:
        os.environ["TRYGON_CONFIG"] = config_file
    for switch in switches(Settings.load(), cpus=available_cpus()):
        click.echo(f"export {switch.name}={shlex.quote(switch.value)}  # {switch.reason}")


@main.group()
def models() -> None:
    """Look at and control the models of a running server."""


url_option = click.option("--url", default=DEFAULT_URL, show_default=True, help="HTTP address of the server.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@models.command("list")
@url_option
@json_option
@reports_errors
def list_models(url: str, *, as_json: bool) -> None:
    """List every model version and its state."""
    from trygon.deployments.console import show_index, show_json  # noqa: PLC0415 - see the module's docstring
    from trygon.deployments.repository_client import RepositoryClient  # noqa: PLC0415 - see the module's docstring

    with RepositoryClient(url) as client:
        rows = client.index()
    if as_json:
        show_json([row.as_dict() for row in rows])
    else:
        show_index(rows)


@models.command()
@click.argument("model")
@url_option
@json_option
@reports_errors
def load(model: str, url: str, *, as_json: bool) -> None:
    """Load or reload MODEL, and wait until it is done."""
    _control("load", model, url, as_json=as_json)


@models.command()
@click.argument("model")
@url_option
@json_option
@reports_errors
def unload(model: str, url: str, *, as_json: bool) -> None:
    """Unload all versions of MODEL."""
    _control("unload", model, url, as_json=as_json)


@models.command()
@click.argument("model")
@click.option("--version", default="", metavar="NUMBER", help="Version to show; the newest that serves if left out.")
@url_option
@json_option
@reports_errors
def show(model: str, version: str, url: str, *, as_json: bool) -> None:
    """Show the platform, versions and tensors of MODEL."""
    from trygon.deployments.console import show_json, show_metadata  # noqa: PLC0415 - see the module's docstring
    from trygon.deployments.repository_client import RepositoryClient  # noqa: PLC0415 - see the module's docstring

    with RepositoryClient(url) as client:
        metadata = client.metadata(model, version)
    if as_json:
        show_json(metadata)
    else:
        show_metadata(metadata)


def _control(verb: str, model: str, url: str, *, as_json: bool) -> None:
    from trygon.deployments.console import show_index, show_json  # noqa: PLC0415 - see the module's docstring
    from trygon.deployments.repository_client import RepositoryClient  # noqa: PLC0415 - see the module's docstring

    with RepositoryClient(url) as client:
        (client.load if verb == "load" else client.unload)(model)
        rows = [row for row in client.index() if row.name == model]
    if as_json:
        show_json([row.as_dict() for row in rows])
    else:
        show_index(rows)


if __name__ == "__main__":
    main()
