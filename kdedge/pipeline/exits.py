"""arrays/*.npz, engine/cascade.<precision>.json -> exits.json, exits.svg, and the threshold in the cascade.

The threshold is chosen on the validation images; the test images are looked at once, at that threshold.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx.utils
from numpy.typing import NDArray

from kdedge.core import console
from kdedge.core.errors import KdedgeError, require
from kdedge.core.exits import ExitQuality, ExitsReport, MeasuredCascade, WithoutExits
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, TrainingReport
from kdedge.core.rundir import read_record, write_json, write_text
from kdedge.core.stats import Answers, Costs, choose, exit_curve, judge, operating_point
from kdedge.engine.base import backend
from kdedge.engine.cascade import read_cascade, set_threshold
from kdedge.pipeline.cascades import Place, cascade_name, place_of
from kdedge.pipeline.project import EXITS, EXPORT, TRAINING, Project
from kdedge.pipeline.show import show_exits
from kdedge.profile.measure import Shapes, profile_model
from kdedge.profile.predict import predict
from kdedge.profile.targets import Target
from kdedge.report.charts import exits_file

SLACK = 0.005
"""Of validation accuracy given up against the deepest exit when nothing else is wanted."""
TIMED = 1000
"""Images that the deployed cascade is timed on, at most."""
VALIDATION, TEST = "arrays/validation.npz", "arrays/eval.npz"


class Asked(NamedTuple):
    """What the command line asks for; at most one of accuracy and threshold."""

    accuracy: str | None = None
    threshold: float | None = None
    precision: str = "fp32"


def find_threshold(project: Project, asked: Asked, target: Target) -> None:
    """Choose a run's threshold, measure what it gives, and keep both; holds the run's lock and the device."""
    wanted = parse(asked)
    with project.run.locked(), target:
        export = with_exits(project)
        place = place_of(project, export, asked.precision, target)
        work = Measuring(project, export, asked.precision, place)
        report = work.report(wanted, asked.threshold)
        write_json(project.run / f"{place.folder}{EXITS}", report)
        write_text(project.run / f"{place.folder}exits.svg", exits_file(report))
        set_threshold(work.path, report.validation.threshold)
        made = [f"{place.folder}{EXITS}", f"{place.folder}exits.svg", *place.made]
        project.run.record(place.command, project.key("exits"), made)
    show_exits(report)
    console.emit(report)


def parse(asked: Asked) -> float | None:
    """The wanted accuracy as a fraction.

    Raises:
        KdedgeError: it is not one, nor is the threshold, or both are given.
    """
    if asked.threshold is not None:
        if asked.accuracy is not None:
            raise KdedgeError("--accuracy and --threshold", "the one is chosen for the other", "give one of them")
        if not 0 <= asked.threshold <= 1:
            raise KdedgeError(f"--threshold {asked.threshold}", "a probability is expected", "--threshold 0.9")
    return None if asked.accuracy is None else fraction(asked.accuracy)


def fraction(text: str) -> float:
    """0.925 from 92.5% and from 0.925.  A bare 92.5 is refused: a slip of the point should not pass as one per cent."""
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (1 if number == text.strip() else 100)
    except ValueError:
        value = math.nan
    if 0 <= value <= 1:
        return value
    fix = f"--accuracy {number}%" if 1 < value <= 100 and number == text.strip() else "--accuracy 92.5%"
    raise KdedgeError(f"--accuracy {text}", "expected a percentage such as 92.5%, or a fraction such as 0.925", fix)


def with_exits(project: Project) -> ExportReport:
    """What the run has exported.

    Raises:
        KdedgeError: it was not exported with all exits, or has none, as no detector has.
    """
    if project.recipe.task != "classify":
        raise KdedgeError(
            f"{project.run.path} is a detector", "only classifiers have early exits",
            "kdedge methods self_distill   (it trains them)",
        )  # fmt: skip
    project.run.sha256(EXPORT)  # says what to run when it has not been written
    export = read_record(project.run / EXPORT, ExportReport)
    if export.exit == "all":
        return export
    if not read_record(project.run / TRAINING, TrainingReport).student.exits:
        raise KdedgeError(
            f"{project.run.path} has no early exits", "its recipe trains none",
            "methods: [{name: self_distill, weight: 0.5}]   (in the recipe's last phase; then kdedge run RECIPE)",
        )  # fmt: skip
    raise KdedgeError(
        f"{project.run.path} is not exported with all its exits", "", f"kdedge export {project.run.path} --exit all"
    )


class Measuring:
    """One run of the command, on the cascade of one precision."""

    def __init__(self, project: Project, export: ExportReport, precision: str, place: Place) -> None:
        self.project, self.run, self.export, self.precision = project, project.run, export, precision
        self.target, self.path = place.target, project.run / f"{place.folder}{cascade_name(precision)}"
        self.cascade = read_cascade(self.path)
        self.spec = project.recipe.profile.model_copy(update={"batch": 1})
        self.library = backend(self.cascade.backend)
        threads = {"threads": self.spec.threads} if self.spec.threads and "threads" in self.library.defaults else {}
        self.options = {**self.cascade.options, **threads}
        self.notes: dict[str, list[str]] = {}

    def report(self, wanted: float | None, threshold: float | None) -> ExitsReport:
        tested = read_labelled(self.run / TEST)
        self.write_validation(preprocess=tested.images.dtype == np.uint8)
        validation, test = (
            judge(self.ask(name), labels)
            for name, labels in ((VALIDATION, read_labelled(self.run / VALIDATION).labels), (TEST, tested.labels))
        )
        if threshold is None:
            wanted = max(0.0, float(validation.right[-1].mean()) - SLACK) if wanted is None else wanted
            threshold = choose(exit_curve(validation, self.costs()), wanted).threshold  # fails before all is measured
        shapes = {self.cascade.stages[0].input: (1, *tested.images.shape[1:])}  # a graph that prepares them takes any
        stages = [
            self.profile(self.path.parent / stage.model, f"stage {number}", shapes if number == 1 else {})
            for number, stage in enumerate(self.cascade.stages, 1)
        ]
        costs = self.costs(stages)
        return ExitsReport(
            precision=self.precision,
            backend=self.export.backend,
            threads=stages[0].threads,
            exits=self.exits(costs, validation, test),
            curve=exit_curve(validation, costs),
            wanted=wanted,
            validation_images=validation.right.shape[1],
            test_images=test.right.shape[1],
            validation=operating_point(validation, costs, threshold),
            test=operating_point(test, costs, threshold),
            measured=self.measure(threshold, costs, tested.labels),
            without=self.without(shapes),
            notes=[f"{', '.join(models)}: {note}" for note, models in self.notes.items()],
        )

    def costs(self, stages: Sequence[ProfileReport] = ()) -> Costs:
        """Of each exit; the latencies are zero until the stages have been measured."""
        macs = np.array([point.macs for point in self.export.exits], dtype=np.float64)
        medians = [stage.latency.median for stage in stages] or np.zeros(len(macs))
        return Costs(macs, np.cumsum(medians))

    def ask(self, images: str) -> NDArray[np.float32]:
        """Logits (exits, N, classes) of every exit."""
        answer = predict(self.target, self.library.name, self.path, self.run / images, self.options)
        return np.stack([answer[stage.logits] for stage in self.cascade.stages])

    def write_validation(self, preprocess: bool) -> None:
        """In the form of the test images, where that has not been done since these were written."""
        key = self.run.sha256(TEST)
        if self.run.fresh("validation", key):
            return
        require("torch", "train", f"writing {VALIDATION}")
        from kdedge.data.build import build_data
        from kdedge.pipeline.arrays import write_validation

        recipe = self.project.recipe
        write_validation(build_data(recipe.data, recipe.seed), preprocess, self.run / VALIDATION)
        self.run.record("validation", key, [VALIDATION])

    def profile(self, model: Path, name: str, shapes: Shapes) -> ProfileReport:
        report = profile_model(
            model,
            self.library.name,
            self.spec,
            name=name,
            shapes=shapes,
            precision=self.precision,
            options=self.options,
            target=self.target,
        )
        for note in report.notes:
            self.note(note, name)
        return report

    def note(self, text: str, model: str) -> None:
        self.notes.setdefault(text, []).append(model)

    def exits(self, costs: Costs, validation: Answers, test: Answers) -> list[ExitQuality]:
        return [
            ExitQuality(
                name=point.name,
                stage=point.stage,
                params=point.params,
                macs=point.macs,
                latency_ms=float(costs.latency_ms[k]),
                validation_top1=float(validation.right[k].mean()),
                test_top1=float(test.right[k].mean()),
            )
            for k, point in enumerate(self.export.exits)
        ]

    def measure(self, threshold: float, costs: Costs, truth: NDArray[np.int64]) -> MeasuredCascade:
        """The cascade itself, in fresh processes, as the sum of its stages is no proof of what it takes."""
        request = {
            "mode": "cascade",
            "backend": self.library.name,
            "model": str(self.path),
            "options": self.options,
            "threshold": threshold,
            "arrays": str(self.run / TEST),
            "images": TIMED,
            "warmup_cap": self.spec.warmup_cap,
        }
        replies = []
        with console.progress_bar(f"cascade at {threshold:.4f}", self.spec.processes) as bar:
            for _ in range(self.spec.processes):
                replies.append(self.target.run(request))
                bar.advance()
        if restless := sum(not reply["settled"] for reply in replies):
            cap = f"{self.spec.warmup_cap:g} s"
            self.note(f"the warm-up did not settle within {cap} in {restless} of {len(replies)} processes", "cascade")
        times = np.array([reply["latency_ms"] for reply in replies])
        ids, labels, exits = (np.array(replies[0][key]) for key in ("ids", "labels", "exits"))
        return MeasuredCascade(
            images=len(ids),
            processes=len(replies),
            top1=float((labels == truth[ids]).mean()),
            mean_ms=float(times.mean()),
            median_ms=float(np.median(times)),
            predicted_ms=float(costs.latency_ms[exits].mean()),
            shares=(np.bincount(exits, minlength=len(costs.macs)) / len(exits)).tolist(),
        )

    def without(self, shapes: Shapes) -> WithoutExits:
        """What the student alone takes, built and measured like the stages."""
        with TemporaryDirectory(dir=self.run.path, prefix=".without-") as folder:
            model, engine = Path(folder, "student.onnx"), Path(folder, f"student{self.library.suffix}")
            source = self.run / self.export.onnx[self.precision].path
            onnx.utils.extract_model(source, model, [self.cascade.stages[0].input], ["logits"])
            files = {"onnx": str(model), "out": str(engine)}
            self.target.run({"mode": "build", "backend": self.library.name, "options": self.options, **files})
            latency = self.profile(engine, "student without exits", shapes).latency
        student = read_record(self.run / TRAINING, TrainingReport).student
        return WithoutExits(params=student.params, macs=student.macs, latency_ms=latency.median, mean_ms=latency.mean)


class Labelled(NamedTuple):
    images: NDArray[Any]
    labels: NDArray[np.int64]


def read_labelled(path: Path) -> Labelled:
    """Without torch, which pipeline.arrays needs to write them."""
    with np.load(path) as arrays:
        return Labelled(arrays["images"], arrays["labels"])
