"""What a user installs: the wheel's content, and the whole pipeline from it."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Needs = Callable[[object, str], None]
HOW = "set {} to the Python of a virtual environment with kdedge's wheel{}, as .ci/run does"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_the_code_and_nothing_beside_it(wheel: zipfile.ZipFile) -> None:
    files = [path for path in (ROOT / "kdedge").rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    code = {path.relative_to(ROOT).as_posix() for path in files}
    shipped = {
        f"kdedge/_shipped/{path.relative_to(ROOT)}" for path in ROOT.glob("*/*.yaml") if path.parent.name[0] != "."
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == code | shipped


def test_wheel_names_its_license_and_its_command(wheel: zipfile.ZipFile) -> None:
    about = {name.partition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "kdedge = kdedge.cli:main" in wheel.read(about["entry_points.txt"]).decode()
    assert wheel.read(about["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
    metadata = wheel.read(about["METADATA"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


def kdedge(python: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the wheel's command as a user does, in a folder without the source."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    command = [str(Path(python).with_name("kdedge")), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, needs: Needs) -> Path:
    """The folder in which the wheel ran the quickstart."""
    python = os.environ.get("KDEDGE_TRAIN_PYTHON")
    needs(python, HOW.format("KDEDGE_TRAIN_PYTHON", " and its [train] extra"))
    folder = tmp_path_factory.mktemp("quickstart")
    result = kdedge(str(python), folder, "run", "quickstart")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder


@pytest.mark.timeout(900)
def test_quickstart_runs_from_the_wheel_in_an_empty_folder(finished: Path) -> None:
    assert [path.name for path in finished.iterdir()] == ["runs"]
    run = next((finished / "runs").iterdir())
    assert (run / "report.html").stat().st_size > 0


def test_gate_and_report_need_no_torch_where_another_machine_trained(finished: Path, needs: Needs) -> None:
    python = os.environ.get("KDEDGE_BARE_PYTHON")
    needs(python, HOW.format("KDEDGE_BARE_PYTHON", " alone"))
    gate = kdedge(str(python), finished, "gate", "--json")
    assert gate.returncode == 0, gate.stderr
    assert json.loads(gate.stdout)["verdict"] == "pass"
    page = next((finished / "runs").glob("*/report.html"))
    page.unlink()
    report = kdedge(str(python), finished, "report")
    assert report.returncode == 0, report.stderr
    assert page.stat().st_size > 0
