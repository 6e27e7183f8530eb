"""The package list of pyproject.toml and the folders on disk are the same."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = ("db", "deployments", "models", "storage", "tenancy")


def test_every_package_on_disk_is_installed_and_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    on_disk = {"trygon"} | {
        ".".join(("trygon", *init.parent.relative_to(ROOT).parts))
        for top in TOP_LEVEL
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == on_disk


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {module.parent for top in TOP_LEVEL for module in (ROOT / top).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
