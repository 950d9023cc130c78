"""student/weights.safetensors -> arrays/, export/*.onnx, engine/*, predictions/*.npz, export.json"""

import json
import tempfile
from pathlib import Path

from torch import nn

from kdedge.core import console
from kdedge.core.errors import ModelError
from kdedge.core.precision import Fragility, Layout
from kdedge.core.recipe import Model, Normalize
from kdedge.core.report import ExportedFile, ExportReport, Original, Sensitivity
from kdedge.core.rundir import sha256_file, write_json
from kdedge.data.build import build_data
from kdedge.data.sets import Dataset
from kdedge.distill.result import RANGES
from kdedge.engine.base import backend
from kdedge.engine.cascade import Link, cascade_record
from kdedge.export.arrays import read_arrays
from kdedge.export.exits import cut
from kdedge.export.fragility import Pair, fragility
from kdedge.export.int8 import Calibrated
from kdedge.export.onnx import NO_EXITS, Outputs, count_nodes, export_onnx
from kdedge.export.parity import refuse
from kdedge.export.precision import to_fp16
from kdedge.export.referee import Referee
from kdedge.export.sensitivity import Judge, ask, within_limit
from kdedge.export.trace import INPUT
from kdedge.models.cost import cost
from kdedge.models.weights import load_weights
from kdedge.pipeline.arrays import write_arrays, write_validation
from kdedge.pipeline.environment import environment
from kdedge.pipeline.heads import Exported, choose_exits
from kdedge.pipeline.hops import Hops
from kdedge.pipeline.networks import build, dense_form
from kdedge.pipeline.project import BASELINE, CARD, EXPORT, Project
from kdedge.pipeline.referees import referee_of
from kdedge.pipeline.show import show_export

TEACHER, ORIGINAL = "teacher", "original"
FP32 = "export/student.fp32.onnx"


def run(project: Project) -> list[str]:
    """Export and compare every hop; returns the artifacts.

    Raises:
        ModelError: a hop loses more than the recipe tolerates.
    """
    recipe = project.recipe
    dataset = build_data(recipe.data, recipe.seed)
    work = Exporting(project, dataset)
    student = work.load(recipe.student, "student/weights.safetensors")
    exported = choose_exits(recipe, dataset, student, project.run / "student")
    (project.run / CARD).unlink(missing_ok=True)  # it is about the files that are written anew
    work.artifacts += write_arrays(dataset, recipe.export, project.run / "arrays")
    work.student(exported)
    if recipe.teachers:
        work.teacher(work.load(recipe.teachers[0], "teacher.safetensors"))
    dense = dense_form(recipe.student)
    original = work.original(dense) if dense else None
    hops = Hops(project.run, recipe.export, exported.outputs.logits, work.referee())
    hops.compare(exported.network, dataset.normalize, work.onnx, work.engines, work.cascades)
    fragile = work.fragility(hops) if exported.outputs == NO_EXITS else None
    report = ExportReport(
        input_shape=list(hops.arrays.images.shape[1:]),
        onnx=work.onnx,
        engines=work.engines,
        hops=hops.hops,
        exit=exported.outputs.exit,
        exits=list(exported.exits),
        original=original,
        layout=work.layout,
        sensitivity=work.sensitivity,
        fragility=fragile,
        opset=recipe.export.opset,
        backend=recipe.export.backend,
        backend_options=recipe.export.backend_options,
        environment=environment(),
    )
    write_json(project.run / EXPORT, report)
    show_export(report)
    for sentence in report.warned():
        console.warn(sentence)
    refuse(report.hops)
    return [*work.artifacts, *hops.artifacts, EXPORT]


class Exporting:
    """One run of the command, and what it has written."""

    def __init__(self, project: Project, dataset: Dataset) -> None:
        self.project, self.dataset, self.recipe, self.run = project, dataset, project.recipe.export, project.run
        self.artifacts: list[str] = []
        self.onnx: dict[str, ExportedFile] = {}
        self.engines: dict[str, ExportedFile] = {}
        self.cascades: dict[str, ExportedFile] = {}
        self.layout: Layout | None = None
        self.sensitivity: Sensitivity | None = None

    def load(self, model: Model, weights: str) -> nn.Module:
        network = build(model, self.dataset, self.project.recipe.seed)
        load_weights(network, self.run / weights)
        return network.eval()

    def student(self, exported: Exported) -> None:
        """fp32 from the network, the other precisions from fp32, and each one's engine or engines."""
        fp32 = self.run / FP32
        self.write(exported.traced, fp32, self.dataset.normalize, exported.outputs)
        for precision in self.recipe.precisions:
            path = self.run / f"export/student.{precision}.onnx"
            if precision == "fp16":
                to_fp16(fp32, path)
            elif precision == "int8":
                self.int8(fp32, path)
            self.keep(precision, path)
            if exported.outputs.features:
                self.cascade(precision, path, exported.outputs)

    def int8(self, fp32: Path, path: Path) -> None:
        """All layers, or all but those that it takes to stay within the recipe's limit."""
        calibrated = self.calibrated(fp32, "student")
        self.layout = calibrated.layout
        limit = self.recipe.tolerance.int8.accuracy_drop
        if self.recipe.quantization.sensitivity and limit is not None:
            split, name = self.unseen()
            judge = Judge(calibrated, read_arrays(self.run / name), self.referee())
            self.sensitivity = within_limit(judge, limit, split)
        calibrated.quantize(path, keep=self.left_in_float())

    def calibrated(self, fp32: Path, training: str) -> Calibrated:
        """Args:
        training: student or baseline, whose learned ranges count where it trained for int8.
        """
        learned = self.run / training / RANGES
        aware = self.project.recipe.phases[-1].quantize
        ranges = json.loads(learned.read_text(encoding="utf-8")) if aware else {}
        return Calibrated(fp32, read_arrays(self.run / "arrays/calibration.npz").images, self.recipe, ranges)

    def left_in_float(self) -> list[str]:
        return self.sensitivity.left_in_float if self.sensitivity else []

    def fragility(self, hops: Hops) -> Fragility | None:
        """What int8 costs the distilled student beside its undistilled twin, the same layers in int8.

        None where there are not both, or nothing is asked of them; of detectors it is a note on the int8 hop, as mAP is
        of no single image and so has no sign test.
        """
        recipe, limit = self.project.recipe, self.recipe.tolerance.int8.extra_drop
        distilled = any(phase.methods for phase in recipe.phases)
        if limit is None or "int8" not in self.onnx or not distilled or not recipe.baseline:
            return None
        arrays, referee = hops.arrays, hops.referee
        with tempfile.TemporaryDirectory(prefix="kdedge-baseline-") as folder:
            fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            self.write(self.load(recipe.student, BASELINE), fp32, self.dataset.normalize)
            self.calibrated(fp32, "baseline").quantize(int8, keep=self.left_in_float())
            baseline = Pair(ask(fp32, arrays, referee), ask(int8, arrays, referee))
        student = Pair(hops.answer("onnx-fp32"), hops.answer("onnx-int8"))
        if recipe.task == "classify":
            return fragility(student, baseline, arrays.labels, limit)
        mine, other = (100 * referee.drop(*pair, arrays) for pair in (student, baseline))
        costs = f"int8 costs the distilled student {mine:.2f} points and the undistilled one {other:.2f}"
        hops.hop("onnx-int8").notes.append(f"{costs}; whether by chance, no test says of mAP")
        return None

    def referee(self) -> Referee:
        return referee_of(self.project.recipe.task, self.run / FP32, self.dataset.labels)

    def unseen(self) -> tuple[str, str]:
        """Images to choose on, which are not the test's: what they are called, and their file."""
        if not len(self.dataset.validation):
            return "calibration", "arrays/calibration.npz"
        name = "arrays/validation.npz"
        write_validation(self.dataset, self.recipe.preprocess, self.run / name)
        self.artifacts.append(name)
        return "validation", name

    def teacher(self, network: nn.Module) -> None:
        """In fp32, so that it is measured beside its student."""
        path = self.run / "export/teacher.onnx"
        self.write(network, path, self.project.recipe.teachers[0].normalize or self.dataset.normalize)
        self.keep(TEACHER, path)

    def original(self, dense: Model) -> Original:
        """The student before lightening, in fp32, so that what fewer MACs buy in time is measured."""
        recipe = self.project.recipe
        network = build(dense, self.dataset, recipe.seed).eval()
        price = cost(network, self.dataset.image_shape)
        is_teacher = bool(recipe.teachers) and alike(recipe.teachers[0], dense)
        if not is_teacher:
            path = self.run / f"export/{ORIGINAL}.onnx"
            self.write(network, path, self.dataset.normalize)
            self.keep(ORIGINAL, path)
        name = TEACHER if is_teacher else ORIGINAL
        return Original(name=name, model=dense.name, params=price.params, macs=price.macs)

    def write(self, network: nn.Module, path: Path, normalize: Normalize, outputs: Outputs = NO_EXITS) -> None:
        export_onnx(network, path, self.dataset.image_shape, self.recipe, normalize, self.dataset.labels, outputs)

    def cascade(self, precision: str, whole: Path, outputs: Outputs) -> None:
        """A model cut into its stages, the engine of each, and the file that joins them."""
        numbers = range(1, len(outputs.logits) + 1)
        paths = [self.run / f"export/cascade{number}.{precision}.onnx" for number in numbers]
        cut(whole, paths, outputs)
        make = self.describe if self.recipe.engines == "device" else self.build
        for path in paths:
            make(path)
        names = zip((INPUT, *outputs.features), (*outputs.features, None), outputs.logits, strict=True)
        links = [Link(self.engine(path).name, *name) for path, name in zip(paths, names, strict=True)]
        joined = self.run / f"engine/cascade.{precision}.json"
        write_json(joined, cascade_record(precision, self.recipe.backend, self.recipe.backend_options, links))
        self.cascades[precision] = self.describe(joined)

    def keep(self, name: str, path: Path) -> None:
        """Note an ONNX file and build its engine, where engines are built here."""
        if self.recipe.engines == "device":
            self.onnx[name] = self.describe(path)
            return
        self.onnx[name], self.engines[name], built = self.build(path)
        self.read_back(name, built)
        if reason := backend(self.recipe.backend).obstacle():
            self.engines[name].notes.append(f"built but not run: {reason}")

    def build(self, path: Path) -> tuple[ExportedFile, ExportedFile, dict[str, int]]:
        """The ONNX file, its engine, and the engine's nodes by the type they compute in."""
        engine = self.engine(path)
        built = backend(self.recipe.backend).build(path, engine, self.recipe.backend_options)
        self.artifacts.append(f"engine/{engine.name}.json")
        return self.describe(path), self.describe(engine), built

    def engine(self, path: Path) -> Path:
        """Where that of an ONNX file is, or will be."""
        return self.run / "engine" / f"{path.name.removesuffix('.onnx')}{backend(self.recipe.backend).suffix}"

    def read_back(self, name: str, built: dict[str, int]) -> None:
        """Note where an engine computes in more than its precision, or does not say what in.

        Raises:
            ModelError: it is int8 in name only.
        """
        if name not in ("fp16", "int8"):
            return
        engine = self.engines[name]
        if not built:
            engine.notes.append(f"{self.recipe.backend} does not say what it computes in")
        elif name == "fp16" and not built.get("fp16"):
            engine.notes.append("fp16 storage")
        elif name == "int8":
            refuse_float(engine.path, self.recipe.backend, built)
            if 2 * built["int8"] < sum(built.values()):
                engine.notes.append(f"only {built['int8']} of {sum(built.values())} nodes compute in int8")

    def describe(self, path: Path) -> ExportedFile:
        name = str(path.relative_to(self.run.path))
        self.artifacts.append(name)
        layers = count_nodes(path) if path.suffix == ".onnx" else None
        return ExportedFile(path=name, bytes=path.stat().st_size, sha256=sha256_file(path), layers=layers)


def refuse_float(path: str, library: str, built: dict[str, int]) -> None:
    """Raises ModelError when nothing of an int8 engine computes in int8."""
    if built.get("int8"):
        return
    why, fix = f"it was built with {built}", "see export.quantization"
    if library == "ort_cuda":
        why = "ONNX Runtime's CUDA provider computes in float between Q/DQ pairs, which only add work"
        fix = "--set export.precisions=[fp32, fp16], or --set export.backend=ort_tensorrt"
    raise ModelError(f"{path} was asked for in int8", why, fix)


def alike(one: Model, other: Model) -> bool:
    return (one.name, one.options, one.lighten) == (other.name, other.options, other.lighten)
