"""A recipe: everything that decides a student, its engine, its measurement and its gate, as plain data.

Structure only.  Whether a model, data set, method or backend of that name exists is the pipeline's question.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from kdedge.core.deployment import Card, Export, Gate, Profile
from kdedge.core.lightening import Lighten
from kdedge.core.quality import Task
from kdedge.core.section import Fraction, Section, without_unused
from kdedge.core.training import Phase, check_chosen_teachers


class Normalize(Section):
    """Per-channel mean and standard deviation of pixels in 0..1."""

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _same_length(self) -> "Normalize":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std differ in length: {len(self.mean)} and {len(self.std)}")
        return self


class Augment(Section):
    crop_padding: int = Field(0, ge=0)
    """Pixels of zero padding before a random crop back to the image size (sets in memory)."""
    flip: bool = False
    """Mirror half of the images."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Area range of the random resized crop (folders of large images)."""
    views: int | None = Field(None, ge=1)
    """Show each image in this many ways, in turn and the same in every run, so that what frozen teachers make of them
    is computed once and kept in the user's cache folder; without it each epoch draws anew."""
    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    """Range of the size that a picture is shown at; below 1 with gray around it (sets with boxes)."""
    iou_crop: bool = False
    """Crop as SSD does, to a part that some box fills by a random share (sets with boxes)."""
    color: Fraction = 0.0
    """Change brightness, contrast and saturation by up to this share each (sets with boxes)."""

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(self, dump(self), ("zoom", "iou_crop", "color"))


class Data(Section):
    name: str
    root: str | None = None
    """Folder that holds the set; without it KDEDGE_DATA, then the user's cache folder."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the training images set aside for every choice that is made, unless the set has images for that."""
    train_limit: int | None = Field(None, ge=1)
    """Train on the first N images only."""
    image_size: int | None = Field(None, ge=8)
    """Side in pixels of what the model sees (folders of large images: 224 there; sets with boxes: 320)."""
    normalize: Normalize | None = None
    """Without it: the set's own training statistics; ImageNet's for folders of large images and sets with boxes."""
    augment: Augment = Augment()
    workers: int = Field(2, ge=0)
    """Loader processes (folders of large images, sets with boxes)."""
    classes: tuple[str, ...] | None = Field(None, min_length=1)
    """Class names in the order of their labels; objects of others are left out (sets with boxes).  Without it: all
    that the annotations name."""
    repeat_threshold: float | None = Field(None, gt=0, le=1)
    """Draw images with classes that are on less than this share of the images more often, by repeat factors."""

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(self, dump(self), ("classes", "repeat_threshold"))

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes and (twice := sorted({name for name in classes if classes.count(name) > 1})):
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return classes


class Model(Section):
    name: str
    options: dict[str, Any] = Field({})
    lighten: Lighten | None = None
    backbone: str | None = None
    """Weights that a detector's backbone starts from: a file of the classifier that it was taken from, such as
    torchvision's for ImageNet, looked for and read as a checkpoint is."""

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(self, dump(self), ("backbone",))


class Teacher(Model):
    checkpoint: str | None = None
    """Weights (.safetensors, or .pt/.pth/.th read with weights_only); relative to the recipe, then to KDEDGE_DATA."""
    normalize: Normalize | None = None
    """What its images were normalized with, when not as the data section says."""
    training: Phase | None = None
    """Train it by this instead, once; the result is kept in the user's cache folder."""
    teachers: tuple["Teacher", ...] = ()
    """Whom it learns from in that training, which makes it a teacher assistant."""

    @model_validator(mode="after")
    def _one_source(self) -> "Teacher":
        if self.checkpoint is None and self.training is None:
            raise ValueError("needs a checkpoint, or a training section of its own")
        if self.checkpoint is not None and self.training is not None:
            raise ValueError("takes a checkpoint or a training section, not both")
        if self.checkpoint is not None and self.backbone is not None:
            raise ValueError("takes a checkpoint or a backbone, not both: a checkpoint has all weights")
        if self.training and self.training.methods and not self.teachers:
            raise ValueError("a teacher's own training takes distillation methods only with teachers of its own")
        if self.teachers and not (self.training and self.training.methods):
            raise ValueError("a teacher has teachers, and no training.methods to learn from them by")
        if self.training and self.training.quantize:
            raise ValueError("training.quantize: it is the student that is made int8")
        if self.training:
            check_chosen_teachers(self.training, len(self.teachers))
        if self.lighten and self.lighten.init == "teacher":
            raise ValueError("lighten.init: teacher is for the student; a teacher has none to start from")
        return self


class Run(Section):
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1)
    """Of this machine; more than one trains with DistributedDataParallel."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    threads: int | None = Field(None, ge=1)
    """CPU threads; without it the physical cores this process may use."""
    channels_last: bool = False
    compile: bool = False
    """Compile the student with torch.compile."""


class Recipe(Section):
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Without it: the file's name."""
    task: Task = "classify"
    seed: int = Field(0, ge=0)
    data: Data
    student: Model
    teachers: tuple[Teacher, ...] = ()
    peers: tuple[Model, ...] = ()
    """Networks that train beside the student and learn from it as it does from them."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    """Trained one after the other, the weights handed on."""
    baseline: bool = True
    """Also train what the gain is measured from: the student on the labels alone, and what its methods name besides."""
    run: Run = Run()
    export: Export = Export()
    profile: Profile = Profile()
    gate: Gate = Gate()
    card: Card = Card()

    @model_validator(mode="after")
    def _someone_to_start_from(self) -> "Recipe":
        if self.student.lighten and self.student.lighten.init == "teacher" and not self.teachers:
            raise ValueError("student.lighten.init is teacher, and the recipe has no teachers")
        if self.student.lighten and self.student.lighten.init == "teacher" and self.student.backbone:
            raise ValueError("student.backbone and lighten.init: teacher, which has weights for all of it; not both")
        if any(peer.backbone for peer in self.peers):
            raise ValueError("peers start from random weights; backbone is for the student and its teachers")
        return self

    @model_validator(mode="after")
    def _losses_of_the_task(self) -> "Recipe":
        other = "cross_entropy" if self.task == "detect" else "detection"
        phases = [*self.phases, *(teacher.training for teacher in self.teachers if teacher.training)]
        if any(getattr(phase, other) != Phase.model_fields[other].default for phase in phases):
            mine = "detection" if self.task == "detect" else "cross_entropy"
            raise ValueError(f"{other} of a phase counts for nothing under task: {self.task}; what counts is {mine}")
        return self

    @model_validator(mode="after")
    def _boxes_of_a_detector(self) -> "Recipe":
        if self.task == "classify" and self.export.boxes != "heads":
            raise ValueError(f"export.boxes: {self.export.boxes} is of detectors; under task: classify leave it out")
        if self.task == "classify" and self.export.dynamic_size:
            raise ValueError("export.dynamic_size is of detectors; under task: classify leave it out")
        return self

    @model_validator(mode="after")
    def _quantized_to_the_end(self) -> "Recipe":
        quantized = [phase.quantize is not None for phase in self.phases]
        if quantized != sorted(quantized):
            raise ValueError("a phase after one with quantize undoes what that trained for; give it quantize as well")
        if any(quantized) and self.run.compile:
            raise ValueError("run.compile and a phase with quantize: not both")
        return self

    @model_validator(mode="after")
    def _teachers_that_there_are(self) -> "Recipe":
        for phase in self.phases:
            check_chosen_teachers(phase, len(self.teachers))
        return self
