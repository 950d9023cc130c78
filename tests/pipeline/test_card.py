"""The model card of a real run."""

import re

from forked import Forkserver
from mini import Finished

from kdedge.core.load import load_recipe
from kdedge.core.rundir import RunDir, sha256_file
from kdedge.pipeline.project import CARD, open_project, plain


def test_card_is_an_artifact_beside_the_onnx_files(finished: Finished) -> None:
    assert RunDir(finished.run).manifest.artifacts[CARD].producer == "report"
    text = (finished.run / CARD).read_text()
    for file in finished.run.glob("export/*.onnx"):
        assert f"| export/{file.name} | {file.stat().st_size} | {sha256_file(file)} |" in text
    assert str(finished.folder) not in text


def test_recipe_in_the_card_makes_the_same_run(finished: Finished, copied: Finished) -> None:
    shown = re.search(r"^```yaml\n(.*?)^```", (finished.run / CARD).read_text(), re.MULTILINE | re.DOTALL)
    assert shown
    (copied.folder / "again.yaml").write_text(shown[1])
    again = load_recipe(str(copied.folder / "again.yaml"))
    before = load_recipe(str(finished.recipe))
    assert open_project(again, copied.folder).run.path.name == finished.run.name
    ours, theirs = plain(again.recipe), plain(before.recipe)
    assert theirs["export"].pop("preset") == "onnxruntime_cpu"
    assert ours["export"].pop("preset") is None
    assert ours == theirs


def test_card_does_not_outlive_the_files_that_it_is_about(forkserver: Forkserver, copied: Finished) -> None:
    before = (copied.run / CARD).read_text()
    (copied.run / "export/student.fp32.onnx").unlink()
    assert forkserver.run(["export", str(copied.run)], copied.folder)[0] == 0
    assert not (copied.run / CARD).exists()
    code, process = forkserver.run(["run", "mini.yaml"], copied.folder)
    assert code == 0, process.stderr
    assert "## Files" in before
    assert sha256_file(copied.run / "export/student.fp32.onnx") in (copied.run / CARD).read_text()
