"""Runs, cached teachers and kept runs that take disk: said first, removed only when asked."""

import shutil
from pathlib import Path

from kdedge.core import console
from kdedge.core.console import size
from kdedge.core.rundir import RUNS, RunDir, cache_folder
from kdedge.pipeline.kept import kept_folder
from kdedge.pipeline.project import RECIPE


def run(remove: bool, runs: Path = RUNS) -> None:
    """List every run here, every cached teacher and what is kept of each recipe; with `remove`, delete them.

    A folder under runs/ that is not kdedge's, such as another tool's logs, is left alone.

    Raises:
        KdedgeError: one of them is being worked in.
    """
    cached = [path for place in (cache_folder() / "teachers", kept_folder()) for path in sorted(place.glob("*"))]
    folders = [*sorted(path.parent for path in runs.glob(f"*/{RECIPE}")), *filter(Path.is_dir, cached)]
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in folders}
    if remove:
        for path in folders:
            with RunDir(path).locked():
                shutil.rmtree(path)
    title = "removed" if remove else "would be removed"
    console.show_table(title, ("folder", "bytes"), [[str(path), size(count)] for path, count in sizes.items()])
    console.emit({"removed": remove, "folders": {str(path): count for path, count in sizes.items()}})
    if folders and not remove:
        console.say(f"{size(sum(sizes.values()))} in all; kdedge clean --yes removes them")
