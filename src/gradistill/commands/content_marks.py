"""What a model or data are known by in a record of what something was made from: the content, not the path."""

from __future__ import annotations

from pathlib import Path

from gradistill.auditing.onnx_predictor import graph_files, onnx_file
from gradistill.data.file_readers import ending_of
from gradistill.io import checksum_of
from gradistill.models.adapters import Adapter, adapter_files, is_adapter


def model_mark(model: str) -> str:
    """A hash of the weights of a model's folder or ONNX file; of an adapter those of its base too; of the hub its id.

    Example: ``model_mark("runs/teacher")``
    """
    if is_adapter(model):
        return "+".join([*adapter_files(model), model_mark(Adapter.read(model).base)])
    graph = onnx_file(model)
    files = sorted(Path(model).glob("*.safetensors")) if graph is None else graph_files(graph)
    return "+".join(map(checksum_of, files)) or model


def file_marks(place: Path) -> dict[str, str]:
    """The hashes of the data files of a folder, or of one file, by name; of what is not there that it is a hub id."""
    if place.is_file():
        return {place.name: checksum_of(place)}
    if not place.is_dir():
        return {str(place): "hub"}
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    kept = [path for path in files if ending_of(path) or path.suffix == ".arrow"]
    return {path.relative_to(place).as_posix(): checksum_of(path) for path in kept}
