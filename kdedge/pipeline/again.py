"""The line that makes a run again, and what else that takes."""

import shlex
from pathlib import Path

from kdedge.models.code import is_code
from kdedge.pipeline.places import networks
from kdedge.pipeline.project import RECIPE, Project, SavedRecipe


def command_of(project: Project) -> str:
    """With every `--set` that was given; folders of the user's home are written with a tilde."""
    name, *changes = project.given or (f"{project.recipe.name}.yaml",)
    words = ["kdedge", "run", portable(name)]
    words += [word for change in changes for word in ("--set", change.replace(f"{Path.home()}/", "~/"))]
    if any(is_code(model.name) for model in networks(project.recipe).values()):
        words.append("--allow-code")
    return shlex.join(words)


def portable(name: str) -> str:
    """A recipe as it was named; of an absolute path the file alone, which says as much elsewhere."""
    return Path(name).name if Path(name).is_absolute() else name


def notes_on(project: Project, versions: dict[str, str], saved: SavedRecipe) -> list[str]:
    """What the line does not say: the seed, the commit, and the packages."""
    found = [f"Seed {project.recipe.seed}."]
    if not project.given:
        found.append(f"The run is from before its command was recorded: {RECIPE} in its folder is the recipe.")
    if saved.commit:
        found.append(f"Commit of the recipe's folder: {saved.commit}.")
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [*found, f"Made with {made_with}."] if versions else found
