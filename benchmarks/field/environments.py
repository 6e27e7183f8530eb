"""The peers' environments: one virtual environment each, made once from pinned requirements and kept."""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / "benchmarks" / "out"
REQUIREMENTS: Final = Path(__file__).with_name("requirements")
OWN_PYTHON: Final = ROOT / ".venv" / "bin" / "python"
PYTHON_VERSION: Final = "3.11"


class EnvironmentUnavailableError(RuntimeError):
    """An environment could not be made; the text says why."""


def python_of(name: str) -> Path:
    """Return the Python of environment `name`, making it first if its requirements are new; "" is Trygon's own.

    Raises: EnvironmentUnavailableError.
    """
    if not name:
        return OWN_PYTHON
    requirements = REQUIREMENTS / f"{name}.txt"
    folder = OUT / "envs" / name
    stamp = folder / ".requirements"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making the environment of {name}", flush=True)
    # Without --no-config uv applies this project's own overrides, which drop onnxruntime.
    _uv("--no-config", "venv", "--quiet", "--clear", "--python", PYTHON_VERSION, str(folder))
    _uv("--no-config", "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements))
    stamp.write_text(wanted)
    return python


def version_of(name: str, package: str) -> str:
    """Return the version of `package` in environment `name`, as its requirements pin it."""
    if not name:
        return importlib.metadata.version(package)
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


def site_packages(name: str) -> Path:
    """Return the site-packages folder of environment `name`."""
    return OUT / "envs" / name / "lib" / f"python{PYTHON_VERSION}" / "site-packages"


def _uv(*arguments: str) -> None:
    for uv in (os.environ.get("UV"), shutil.which("uv"), str(ROOT / ".tools" / "bin" / "uv")):
        if uv and Path(uv).exists():
            break
    else:
        raise EnvironmentUnavailableError("uv is neither on the PATH nor in .tools: run `make setup`")
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentUnavailableError(f"uv {arguments[1]} failed: {done.stderr.strip()[-500:]}")
