"""Which files a model, engine or cascade consists of."""

from pathlib import Path

from kdedge.core.errors import ModelError
from kdedge.engine.cascade import read_cascade
from kdedge.engine.sidecar import sidecar_path


def external_data(path: Path) -> set[Path]:
    """The files that an ONNX model keeps its weights in; none for one that cannot be read, as who opens it will say.

    Raises:
        ModelError: they are not beside it or below.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return set()
    names = {e.value for tensor in graph.initializer for e in tensor.external_data if e.key == "location"}
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"model {path}", f"it keeps weights in {name}, outside of its folder")
    return {path.parent / name for name in names}


def files_of(path: Path) -> set[Path]:
    """What must be copied, each under the same name relative to `path`'s folder, so that `path` can be used there.

    Raises:
        ModelError: one is missing.
    """
    files = {path}
    if path.suffix == ".onnx" and path.is_file():
        files |= external_data(path)
    elif path.suffix == ".json":
        files.update(*(files_of(path.parent / link.model) for link in read_cascade(path).stages))
    for file in files:
        if not file.is_file():
            raise ModelError(f"model {file}", "it is not a file" if file.exists() else "there is no such file")
    return files | {sidecar_path(path)} if sidecar_path(path).is_file() else files
