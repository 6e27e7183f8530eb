"""Check that generated files are what their sources generate: `python scripts/check_generated.py`."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def stale_files(output: Path) -> list[str]:
    """Generate everything below `output`, and return what in the repository differs from it and how to renew it."""
    run(["scripts/compile_protos.py", str(output)])
    run(["scripts/generate_error_docs.py", str(output / "errors.md")])
    pairs = [(path, ROOT / path.relative_to(output / "trygon"), "make proto") for path in generated_modules(output)]
    pairs.append((output / "errors.md", ROOT / "docs" / "errors.md", "make docs"))
    return [
        f"{committed.relative_to(ROOT)} is out of date: run `{remedy}`"
        for fresh, committed, remedy in pairs
        if not committed.is_file() or committed.read_bytes() != fresh.read_bytes()
    ]


def generated_modules(output: Path) -> list[Path]:
    """Return the modules that the protocol compiler wrote."""
    return sorted(path for path in output.glob("trygon/**/*_pb2*") if path.suffix in {".py", ".pyi"})


def run(command: list[str]) -> None:
    """Run one of the repository's scripts."""
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        faults = stale_files(Path(folder))
    print("\n".join(faults) or "generated files are up to date")
    sys.exit(bool(faults))
