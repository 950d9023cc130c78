import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from boxreport import boxed, made_up_boxes
from closeups import made_up_answers

from kdedge.report.html import render

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use", "rect"}
HOSTILE = "<b onclick='x'>&\"$\\frac$"


class Page(HTMLParser):
    """What a reader, a screen reader and a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def whole(run) -> str:
    return render(run())


def test_page_stands_alone(whole):
    page = Page(whole)
    assert page.open == []
    assert whole.startswith("<!DOCTYPE html>")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base"}
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 24 + 12
    assert all(picture["src"].startswith("data:image/png;base64,") and picture["alt"] for picture in pictures)
    addresses = [
        value
        for tag, attributes in page.tags
        if tag != "img"
        for name, value in attributes.items()
        if name.split(":")[-1] in ("href", "src")
    ]
    assert addresses
    assert all(value.startswith("#") for value in addresses)
    assert not re.search(r"url\((?!#)|@import|https?://", whole)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_page_ids_are_unique_and_references_resolve(whole):
    ids = re.findall(r' id="([^"]+)"', whole)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', whole)) <= set(ids)


def test_every_figure_is_drawn_and_named(whole):
    figures = re.findall(r"<figure>(.*?)</figure>", whole, flags=re.DOTALL)
    # training, trade-offs, ablation, paired gate, two for each precision, layers: time and memory, memory
    assert len(figures) == 3 + 3 + 1 + 1 + 2 * 3 + 2 + 1
    for figure in figures:
        assert re.search(r'<svg viewBox="0 0 [\d.]+ [\d.]+" role="img" aria-label="[^"]+"', figure)
        assert re.search(r"<title>[^<]+</title>", figure)
        assert re.search(r"<h3>[^<]+</h3>", figure)
        assert sum(len(path) > 40 for path in re.findall(r'<path d="([^"]*)"', figure)) > 5


def test_figures_follow_the_theme(whole):
    figures = "".join(re.findall(r"<svg.*?</svg>", whole, flags=re.DOTALL))
    assert "currentColor" in figures
    assert "var(--series-1)" in figures
    assert not re.search(r"#0000[01]\d|fill: #fff|font-family", figures)
    assert "prefers-color-scheme: dark" in whole
    assert "@media print" in whole


def test_page_says_everything_once_asked(whole):
    text = Page(whole).text
    for part in (
        "Failed a blocking limit is not kept; 1 of 3 checks passed",
        "fp16: fp16 storage, fp32 compute",
        "onnx-int8: top-1 lost 0.91 points, 0.50 allowed",
        "\N{MINUS SIGN}3.26 points against the teacher",
        "+1.38 points against labels alone",
        "14.8\N{MULTIPLICATION SIGN} fewer than the teacher's 855.8k",
        "cpu was Other CPU, is Example CPU @ 2.70GHz",
        "Example CPU @ 2.70GHz",
        "memory total 7.76 GiB",
        "kdedge run recipes/resnet_dw.yaml --set seed=0",
        "- epochs: 40",
        "Measured beside resnet_dw-old regression",
        "int8: throttled, CPU: 1.2 of 1.5 GHz",
        "Rows: the class. Columns: what engine-int8 said. 400 test images.",
        "Images that engine-fp32 has right and engine-int8 wrong",
        "Weights 131.2 KiB. Activations at most 128.0 KiB at once, at batch 1 while conv1 runs.",
        "The 12 slowest of 20 layers: 82.86 %.",
        "NVIDIA Jetson Orin Nano",
        "power mode 25W",
        "engine-int8: 128 images",
        "jetson-nano: measured before the run was exported anew.",
        "resnet20 on cifar10: 45000 training images",
    ):
        assert part in text


def test_headings_go_down_one_level_at_a_time(whole):
    levels = [int(tag[1]) for tag, _ in Page(whole).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_layers_that_were_not_timed_say_how_they_are(run):
    each = run().layers[1]
    text = Page(render(run(layers=[each], folder="runs/mini"))).text
    assert "The time of each layer was not measured for this export: kdedge profile runs/mini --layers" in text
    assert "not measured for this export" not in Page(render(run())).text
    assert "Layers" not in Page(render(run(layers=[]))).text


def test_what_was_not_asked_for_has_no_section(run):
    text = Page(render(run(asked=None, against=None, ablation=None, devices=[], earlier=[]))).text
    for title in ("What is confused", "Worst images", "Measured beside", "Terms of the loss", "Jetson"):
        assert title not in text


def test_page_of_a_detector_says_what_is_missed(detector):
    page = Page(render(detector(profiles=[], layers=[])))
    assert page.open == []
    for part in (
        "Student mAP 48.12 % \N{MINUS SIGN}7.32 points against the teacher +2.51 points against labels alone",
        "Smallest model 2.6 MiB int8 47.02 % mAP",
        "test mAP val. mAP parameters",
        "onnx-int8: mAP fell by 1.1 points, limit 1",
        "no objects",
        "engine-int8 on 24 test images with 192 objects.",
        "Precision by recall of each class",
        "found as",
        "Missed in engine-int8 alone",
    ):
        assert part in page.text
    for part in ("top-1", "What is confused", "exits, all", "training images, augmented"):
        assert part not in page.text


def test_figures_of_a_detector_are_drawn_and_its_pictures_marked(detector):
    text = render(detector(profiles=[], layers=[]))
    figures = re.findall(r'<svg viewBox="[^"]+" role="img" aria-label="([^"]+)"', text)
    assert figures == [
        "mAP by epoch",
        "Training loss of the student by epoch, with its terms",
        "Training loss of the baseline by epoch, with its terms",
        "mAP against model size",
        "Precision by recall of engine-int8 for each class",
        "Precision by recall of each network, mean of the classes",
    ]
    pictures = re.findall(
        r'<img src="data:image/jpeg;base64,[^"]+" alt="Test image \d+, (\d+) missed, (\d+) false"', text
    )
    assert 12 < len(pictures) <= 12 + 6
    found = Counter(re.findall(r'<i class="(\w+)" style="inset: [\d.% ]+" title="[^"]+"></i>', text))
    assert found["missed"] == sum(int(missed) for missed, _ in pictures)
    assert found["false"] == sum(int(false) for _, false in pictures)
    assert found["right"] > 0


def test_detector_of_many_classes_or_of_nothing_found_has_a_page(detector):
    names = [f"class {number}" for number in range(80)]
    many = render(detector(asked=made_up_boxes(names, 8, 30), profiles=[], layers=[], curves={}))
    assert len(many.encode()) < 700_000
    asked = boxed([[(0, 10, 10, 20, 20)], []], {"engine-fp32": [[], []]})
    page = Page(render(detector(asked=asked, profiles=[], layers=[], curves={})))
    assert "1 missed, 0 false" in page.text
    assert "Taken for another class" not in page.text
    assert "Missed in" not in page.text


@pytest.mark.parametrize("classes", [2, 100, 1000])
def test_confusion_of_any_number_of_classes_is_readable(run, classes):
    names = [f"class {k}" for k in range(classes)]
    text = render(run(asked=made_up_answers(names, 2 * classes, 8), profiles=[], layers=[], curves={}))
    tables = re.findall(r'<table class="matrix">(.*?)</table>', text, flags=re.DOTALL)
    assert len(tables) == 2
    assert all(table.count("<tr>") == 1 + min(classes, 12) for table in tables)
    assert len(text.encode()) < 600_000


def test_same_run_gives_the_same_bytes(run, whole):
    assert render(run()) == whole


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ({"gate": None}, "Not gated yet: kdedge gate"),
        ({"profiles": []}, "Not measured yet: kdedge profile"),
        ({"export": None, "profiles": []}, "Not exported yet: kdedge export"),
        ({}, "No training log"),
        ({"curves": {"student": []}}, "No training log"),
    ],
)
def test_what_is_missing_is_said(run, missing, sentence):
    page = Page(render(run(**({"curves": {}, "profiles": []} | missing))))
    assert sentence in page.text
    assert page.open == []


def test_student_alone_needs_neither_teacher_nor_baseline(run):
    training = run().training.model_copy(update={"teachers": [], "baseline": None})
    page = Page(render(run(training=training, profiles=[], curves={"student": run().curves["student"]})))
    assert "against the teacher" not in page.text
    assert "Parameters 58k 8.7M MACs an image" in page.text


def test_ungated_page_warns_of_a_student_below_its_baseline(run):
    training = run().training
    better = training.baseline.model_copy(update={"accuracy": 0.95})
    page = Page(
        render(run(gate=None, curves={}, profiles=[], training=training.model_copy(update={"baseline": better})))
    )
    assert "the student is \N{MINUS SIGN}4.88 points against the whole network trained on the labels alone" in page.text


def test_unsettled_warm_up_is_a_warning(run, make_profile):
    page = Page(render(run(curves={}, profiles=[make_profile("int8", 0.2, 300, 2, settled=False)])))
    assert "int8: the warm-up of 2 of 2 processes did not settle" in page.text


def test_hostile_strings_are_shown_and_not_run(run, make_profile):
    data = run()
    training = data.training.model_copy(update={"labels": [HOSTILE] * 10, "methods": [HOSTILE]})
    student = training.student.model_copy(update={"exits": {HOSTILE: 0.5}, "model": HOSTILE})
    rows = [{**row, HOSTILE: 1.0} for row in data.curves["student"]]
    text = render(
        run(
            title=HOSTILE,
            training=training.model_copy(update={"student": student}),
            curves={"student": rows, HOSTILE: rows},
            profiles=[make_profile(HOSTILE, 0.2, 50, 2)],
            recipe={"name": HOSTILE},
            command=HOSTILE,
            summary=([HOSTILE], [[HOSTILE]]),
        )
    )
    page = Page(text)
    assert page.open == []
    assert not any(tag == "b" or "onclick" in attributes for tag, attributes in page.tags)
    assert page.text.count(HOSTILE) >= 15


def test_many_classes_and_samples_stay_small(run, make_profile):
    data = run()
    hops = [
        hop.model_copy(update={"quality": hop.quality.model_copy(update={"per_class": [0.5] * 200, "empty": [3]})})
        for hop in data.export.hops
    ]
    text = render(
        run(
            training=data.training.model_copy(update={"labels": [f"class {k}" for k in range(200)]}),
            export=data.export.model_copy(update={"hops": hops}),
            profiles=[make_profile(name, 0.1, 20_000, 5) for name in ("fp32", "fp16", "int8")],
        )
    )
    assert len(text.encode()) < 1_500_000
    page = Page(text)
    assert "The other 190 classes" in page.text
    assert "no images" in page.text


def test_a_single_query_and_a_single_epoch_can_be_drawn(run, make_profile):
    data = run()
    text = render(run(profiles=[make_profile("fp32", 0.4, 1, 1)], curves={"student": data.curves["student"][:1]}))
    assert "needs more than 1 samples" in Page(text).text


def test_importing_gate_and_report_needs_no_heavy_package():
    code = (
        "import sys, kdedge.gate.render, kdedge.report.html\n"
        "found = {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(', '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
