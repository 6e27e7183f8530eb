"""Compile the .proto files beside their Python modules: `python scripts/compile_protos.py [OUTPUT_FOLDER]`.

The generated modules register their messages in a descriptor pool of Trygon's own, because tritonclient registers the
same message names in the default pool and both must live in one process.
"""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ("trygon/models/proto/model_config.proto", "trygon/deployments/api/proto/grpc_service.proto")
POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool"
OWN_POOL_IMPORT = "from trygon.models import proto as _descriptor_pool"


def compile_protos(output: Path) -> list[Path]:
    """Write the generated modules below `output`, which stands for the folder above the package; return their paths."""
    google = files("grpc_tools") / "_proto"
    for proto in PROTOS:
        services = [f"--grpc_python_out={output}"] if proto.endswith("grpc_service.proto") else []
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'typings'}", f"-I{google}"),
                *(f"--python_out={output}", f"--pyi_out={output}", *services, str(ROOT / "typings" / proto)),
            ],
            check=True,
        )
    # Only beside the .proto files: below typings/trygon lie the virtual environment and other people's modules, too.
    folders = sorted({(output / proto).parent for proto in PROTOS})
    generated = [path for folder in folders for path in sorted(folder.glob("*_pb2*")) if path.suffix in {".py", ".pyi"}]
    for path in generated:
        path.write_text(path.read_text().replace(POOL_IMPORT, OWN_POOL_IMPORT))
    return generated


if __name__ == "__main__":
    compile_protos(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "typings")
