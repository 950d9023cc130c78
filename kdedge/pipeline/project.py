"""A recipe together with the folder of its run, and the hash of what each command's result depends on."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kdedge.core.deployment import Export
from kdedge.core.errors import KdedgeError, ModelError, nearest
from kdedge.core.load import LoadedRecipe, load_preset
from kdedge.core.recipe import Model, Recipe, Teacher
from kdedge.core.rundir import RUNS, RunDir, digest, newest_run, read_record, sha256_file, write_json
from kdedge.core.source import Source
from kdedge.data.locate import data_root, stamp
from kdedge.engine.base import backend
from kdedge.engine.machine import identity
from kdedge.models.code import code_file, is_code, look_in
from kdedge.pipeline.environment import commit_of
from kdedge.pipeline.places import networks

RECIPE = "recipe.json"
TRAINING, EXPORT, GATE, PAGE = "training.json", "export.json", "gate.json", "report.html"
CARD = "export/README.md"
"""The model card, of the name that hubs show."""
EXITS = "exits.json"
DEVICES, DEVICE = "devices", "device.json"
"""A folder for each board that engines of the run were measured on, and the record in it."""
BASELINE = "baseline/weights.safetensors"
PRESETS = {"ort": "onnxruntime_cpu", "trt": "tensorrt"}


class SavedRecipe(BaseModel):
    """What a run keeps of its recipe, so that later commands need no more than the run's folder."""

    recipe: Recipe
    folder: str
    given: tuple[str, ...] = ()
    """The recipe as it was named, and each `--set`; empty in runs of before it was kept."""
    commit: str = ""
    """Of the repository that the recipe lies in, if any."""


@dataclass(frozen=True)
class Project:
    recipe: Recipe
    folder: Path
    """What relative paths in the recipe are relative to."""
    run: RunDir
    source: Source
    """Where each key of the recipe was written."""
    device: str = ""
    """Folder under devices/ whose numbers count, instead of this machine's."""
    given: tuple[str, ...] = ()
    """The recipe as it was named, and each `--set`."""

    def checkpoint(self, teacher: Teacher) -> Path:
        """The file of a teacher's weights.

        Raises:
            ModelError: as `weights` does.
        """
        return self.weights("the teacher's checkpoint", teacher.checkpoint or "", "teachers.0.checkpoint")

    def backbone(self, model: Model) -> Path | None:
        """The file that a detector's backbone starts from, if the recipe names one.

        Raises:
            ModelError: as `weights` does.
        """
        key = "teachers.0.backbone" if isinstance(model, Teacher) else "student.backbone"
        return self.weights("the backbone", model.backbone, key) if model.backbone else None

    def weights(self, what: str, file: str, key: str) -> Path:
        """A file of weights, looked for beside the recipe, here, and in the data folder.

        Raises:
            ModelError: it is in none of them.
        """
        name = Path(file).expanduser()
        places = dict.fromkeys([self.folder, Path.cwd(), data_root(self.recipe.data)])
        for place in places:
            if (place / name).is_file():
                return place / name
        looked = ", ".join(map(str, places))
        raise ModelError(f"{what} {name} is missing", f"not in {looked}", f"--set {key}=FILE, or KDEDGE_DATA=FOLDER")

    def student_key(self) -> str:
        """Of all that decides the student's weights."""
        recipe = self.recipe
        named = networks(recipe).values()
        files = [*self.checkpoints(recipe.teachers), *self.backbones(named), *code_hashes(named)]
        return digest([weight_sections(recipe), stamp(recipe.data), files, version("kdedge")])

    def checkpoints(self, teachers: Iterable[Teacher]) -> list[str]:
        """Hashes of the files that teachers, and theirs, are read from."""
        own = [(sha256_file(self.checkpoint(t)),) if t.checkpoint else self.checkpoints(t.teachers) for t in teachers]
        return [file for files in own for file in files]

    def backbones(self, models: Iterable[Model]) -> list[str]:
        """Hashes of the files that backbones start from."""
        return [sha256_file(path) for model in models if (path := self.backbone(model))]

    def key(self, command: str) -> str:
        """Of all that decides what a command writes.

        Raises:
            KdedgeError: what it reads has not been written yet.
        """
        recipe, run = self.recipe, self.run
        if command == "distill":
            return digest([self.student_key(), recipe.baseline])
        if command == "export":
            teacher = run.sha256("teacher.safetensors") if recipe.teachers else None
            built_here = recipe.export.engines == "here"
            engine = backend(recipe.export.backend).versions() | identity() if built_here else {}
            heads = run.sha256("student/methods.safetensors") if recipe.export.exits != "none" else None
            trained = ["student/weights.safetensors", *([BASELINE] if recipe.baseline else [])]
            weights = [run.sha256(name) for name in trained]
            return digest([plain(recipe.export), weights, heads, teacher, engine])
        if command == "profile":
            return digest([plain(recipe.profile), run.sha256(EXPORT)])
        if command == "gate":
            baseline = self.baseline()
            inputs = [run.sha256(name) for name in (TRAINING, EXPORT, *self.profiles())]
            known = sha256_file(baseline) if baseline and baseline.is_file() else None
            return digest([plain(recipe.gate), known, inputs])
        if command == "exits":  # of the cascades as they are: an export writes them without a threshold
            cascades = sorted((run / "engine").glob("cascade.*.json"))
            return digest([run.sha256(EXPORT), [sha256_file(path) for path in cascades]])
        if command == "report":
            inputs = [run.sha256(name) for name in (TRAINING, EXPORT, *self.profiles(), GATE, *self.exits())]
            given = [Path(name).name for name in self.given[:1]], self.given[1:]  # from whatever folder it is named
            return digest([plain(recipe.card), recipe.seed, given, inputs, self.looked_closer()])
        raise KdedgeError(f"no command {command!r}")

    def profiles(self) -> list[str]:
        """Artifacts of the last profile: of this machine, or of the device that the run is looked at on."""
        if self.device:
            found = self.run.manifest.commands[f"{DEVICES}/{self.device}"].artifacts
            return [name for name in found if name.startswith(f"{DEVICES}/{self.device}/profile/")]
        entry = self.run.manifest.commands.get("profile")
        if entry is None:
            raise KdedgeError(f"{self.run.path} has not been profiled", "", "kdedge profile")
        return entry.artifacts

    def exits(self) -> list[str]:
        """The record of the early exits, where there is one of the engines that the run has now."""
        return [EXITS] if self.run.fresh("exits", self.key("exits")) else []

    def looked_closer(self) -> dict[str, str]:
        """Hashes of what commands outside the chain wrote, which the report shows as well."""
        chain = ("distill", "export", "profile", "gate", "exits", "report")
        known = self.run.manifest.artifacts.items()
        return {name: artifact.sha256 for name, artifact in known if artifact.producer not in chain}

    def baseline(self) -> Path | None:
        name = self.recipe.gate.baseline
        return self.folder / name if name else None

    def with_preset(self, name: str | None) -> "Project":
        """The same run exported by another preset, with the recipe's exits if the preset says nothing of them."""
        if name is None:
            return self
        export = load_preset(name)
        if "exits" not in export.model_fields_set:
            export = export.model_copy(update={"exits": self.recipe.export.exits})
        return replace(self, recipe=self.recipe.model_copy(update={"export": export}))

    def with_backend(self, name: str | None) -> "Project":
        """The same run for one inference library: exported as its recipe says if it is for that, else by a preset."""
        return self if name in (None, self.recipe.export.backend) else self.with_preset(PRESETS[str(name)])

    def with_exit(self, name: str | None) -> "Project":
        """The same run exported with these exits.

        Raises:
            KdedgeError: not what `export.exits` can be.
        """
        if name is None:
            return self
        try:
            export = Export.model_validate({**plain(self.recipe.export), "exits": name})
        except ValidationError:
            fix = "kdedge export --exit all, or --exit 3/4"
            raise KdedgeError(f"--exit {name}", "it must be none, all or K/N", fix) from None
        return replace(self, recipe=self.recipe.model_copy(update={"export": export}))

    def with_profile(self, changes: dict[str, Any]) -> "Project":
        """The same run measured in another way."""
        profile = self.recipe.profile.model_copy(update=changes)
        return replace(self, recipe=self.recipe.model_copy(update={"profile": profile}))

    def on_device(self, name: str | None) -> "Project":
        """The same run as it was measured on a device.

        Raises:
            KdedgeError: it was not.
        """
        if name is None:
            return self
        known = [entry.partition("/")[2] for entry in self.run.manifest.commands if entry.startswith(f"{DEVICES}/")]
        if name not in known:
            fix = f"kdedge profile {self.run.path} --target ssh://user@board"
            raise KdedgeError(f"{self.run.path} was not measured on a device {name!r}", nearest(name, known), fix)
        return replace(self, device=name)

    def with_baseline(self, path: Path | None) -> "Project":
        """The same run held against another baseline."""
        if path is None:
            return self
        gate = self.recipe.gate.model_copy(update={"baseline": str(path.absolute())})
        return replace(self, recipe=self.recipe.model_copy(update={"gate": gate}))

    def save(self) -> None:
        saved = SavedRecipe(
            recipe=self.recipe, folder=str(self.folder), given=self.given, commit=commit_of(self.folder)
        )
        write_json(self.run / RECIPE, saved)


def control_folder(name: str) -> str:
    """Where in a run a student trained by one of its methods' controls is."""
    return name.replace(" ", "_")


def code_hashes(models: Iterable[Model]) -> list[str]:
    """Of the Python files that models are named by."""
    return [sha256_file(code_file(model.name)) for model in models if is_code(model.name)]


def plain(section: Any) -> Any:
    return section.model_dump(mode="json")


def weight_sections(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides the student's weights."""
    whole = plain(recipe)
    sections = {key: whole[key] for key in ("version", "task", "seed", "student", "teachers", "peers", "phases")}
    return {**sections, **training_sections(recipe)}


def training_sections(recipe: Recipe) -> dict[str, Any]:
    """What of it decides the weights of any network that is trained."""
    data = {key: value for key, value in plain(recipe.data).items() if key not in ("root", "workers")}
    run = {key: getattr(recipe.run, key) for key in ("devices", "precision", "channels_last", "compile")}
    return {"data": data, "run": run}


def open_project(loaded: LoadedRecipe, runs: Path = RUNS) -> Project:
    """The run that belongs to a recipe, whether or not it exists yet."""
    recipe = loaded.recipe
    look_in(loaded.folder)
    name = f"{recipe.name}-{digest(weight_sections(recipe))[:8]}"
    return Project(recipe, loaded.folder, RunDir(runs / name), loaded.source, given=loaded.given)


def reopen(path: Path | None) -> Project:
    """A run by its folder, or the newest one here.

    Raises:
        KdedgeError: no run there.
    """
    run = RunDir(path) if path else newest_run()
    saved = run / RECIPE
    if not saved.is_file():
        why = f"it has no {RECIPE}" if run.path.exists() else "there is no such folder"
        raise KdedgeError(f"{run.path} is not a run", why, "kdedge run RECIPE, or name a folder under runs/")
    content = read_record(saved, SavedRecipe)
    look_in(Path(content.folder))
    return Project(content.recipe, Path(content.folder), run, Source(str(saved)), given=content.given)
