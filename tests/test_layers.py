"""The shape of the code: an import may only point down, files stay short, one place prints."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kdedge"
BELOW = {
    "core": set(),
    "models": {"core"},
    "data": {"core"},
    "engine": {"core.errors"},
    "distill": {"models", "data", "core"},
    "export": {"models", "engine", "core"},
    "profile": {"engine", "core"},
    "gate": {"core"},
    "report": {"core"},
    "pipeline": {"distill", "export", "profile", "gate", "report", "models", "data", "engine", "core"},
    "bench": {"pipeline", "distill", "export", "profile", "gate", "report", "models", "data", "engine", "core"},
    "cli": {"bench", "pipeline", "distill", "export", "profile", "gate", "report", "models", "data", "engine", "core"},
}
TRAINING = {"torch", "torchvision", "lightning", "lightning_fabric", "torchmetrics", "timm", "safetensors"}
WITHOUT = {  # third-party packages that a layer never imports, not even inside a function
    "core": TRAINING | {"numpy", "onnx", "onnxruntime", "matplotlib"},
    "engine": TRAINING | {"pydantic", "rich", "yaml", "psutil", "matplotlib"},
    "profile": TRAINING,
    "gate": TRAINING | {"numpy", "onnx", "onnxruntime", "matplotlib"},
    "report": TRAINING | {"onnx", "onnxruntime"},
}
MAY = {("core/stats.py", "numpy")}
PRINTS = {"core/console.py", "profile/agent.py"}
LONGEST = 300


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import within, those inside functions included."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from ((inner.lineno, alias.name) for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            base = "." * inner.level + (inner.module or "")
            yield from ((inner.lineno, f"{base}.{alias.name}") for alias in inner.names)


def layer_faults(package: Path) -> Iterator[str]:
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).as_posix()
        layer = file.split("/")[0].removesuffix(".py")
        for line, name in imports(parse(path)):
            inside, _, target = name.partition("kdedge.")
            if not inside and target and not permitted(layer, target):
                yield f"{file}:{line}: {layer} imports {name}"
            if name.split(".")[0] in WITHOUT.get(layer, set()) and (file, name.split(".")[0]) not in MAY:
                yield f"{file}:{line}: {layer} does without {name.split('.')[0]}"
            if name.startswith("."):
                yield f"{file}:{line}: write the import out: {name}"


def permitted(layer: str, target: str) -> bool:
    return any(f"{target}.".startswith(f"{below}.") for below in {layer, *BELOW.get(layer, ())})


def test_imports_point_down() -> None:
    assert list(layer_faults(PACKAGE)) == []


def test_every_folder_has_its_place_among_the_layers() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(BELOW)


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("core/a.py", "import kdedge.data.build", "core/a.py:1: core imports kdedge.data.build"),
        ("gate/a.py", "from kdedge.report import html", "gate/a.py:1: gate imports kdedge.report.html"),
        ("data/a.py", "def f():\n    from kdedge.models import zoo", "data/a.py:2: data imports kdedge.models.zoo"),
        ("engine/a.py", "from kdedge.core import console", "engine/a.py:1: engine imports kdedge.core.console"),
        ("profile/a.py", "def f():\n    import torch.nn", "profile/a.py:2: profile does without torch"),
        ("core/a.py", "import numpy as np", "core/a.py:1: core does without numpy"),
        ("core/a.py", "from . import errors", "core/a.py:1: write the import out: ..errors"),
        ("core/stats.py", "import numpy as np", None),
        ("engine/a.py", "from kdedge.core.errors import KdedgeError", None),
        ("distill/a.py", "import torch\nfrom kdedge.models import zoo\nfrom kdedge.distill.base import Method", None),
        ("cli/a.py", "from kdedge.pipeline import whole", None),
    ],
)
def test_layer_faults_finds_what_points_up_or_sideways(file: str, line: str, fault: str | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line)
    assert list(layer_faults(tmp_path)) == ([fault] if fault else [])


def test_cli_starts_with_typer_alone() -> None:
    bodies = [parse(path).body for path in (PACKAGE / "cli").glob("*.py")]
    lines = [node for body in bodies for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    top = {name for node in lines for _, name in imports(node)}
    others = {name for name in top if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in others if not name.startswith(("kdedge.core.errors.", "kdedge.cli."))} == {"typer"}


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(PACKAGE)): n for path, n in lengths.items() if n > LONGEST} == {}


def test_one_place_prints() -> None:
    printing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing - PRINTS == set()
