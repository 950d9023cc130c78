import pytest
import torch
from fivelevels import FiveLevels, some_targets
from gradient import assert_gradient
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.box_logits import classification_loss
from kdedge.distill.methods.logits import kd_loss
from kdedge.distill.methods.mkd import GuidedStages, Mkd, MkdConfig, relation_loss
from kdedge.distill.objective import build_methods
from kdedge.distill.weights import check_terms, term_weight
from kdedge.models.features import FeaturePoint, FeatureTap

STAGES = ("stage1", "stage2")
PARTS = ("attention", "guide", "explore")


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths, classes=10, image_size=8):
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes, image_size)


def features(*widths, seed=0):
    return {f"stage{n + 1}": feature(4, width, 8 >> n, 8 >> n, seed=seed + n) for n, width in enumerate(widths)}


def terms_of(student=(4, 8), teacher=(4, 6), **options):
    return Mkd(MkdConfig(**options), network(*student), network(*teacher)).loss(step(student, teacher))


def step(student=(4, 8), teacher=(4, 6)):
    views = View(feature(4, 10, seed=1), features(*student, seed=10)), View(feature(4, 10), features(*teacher))
    return Step(torch.zeros(4), torch.arange(4), *views, epoch=0, progress=0.5)


def maps(seed=0):
    return feature(2, 2, 4, 4, seed=seed), feature(2, 3, 2, 2, seed=seed + 100)


def places(*matrix):
    """Two stages of one place whose FSP matrix is the second's row."""
    return torch.ones(1, 1, 1, 1), torch.tensor(matrix, dtype=torch.float32).reshape(1, -1, 1, 1)


def test_relation_loss_by_hand():
    by_hand = (3 / 5 - 8 / 10) ** 2 + (4 / 5 - 6 / 10) ** 2
    assert relation_loss(places(3, 4), places(8, 6)).item() == pytest.approx(by_hand)


def test_relation_loss_is_zero_for_equal_stages():
    assert relation_loss(maps(), maps()).item() == 0


def test_relation_loss_of_silent_stages():
    assert relation_loss(places(3, 4), places(0, 0)).item() == pytest.approx(1)
    assert relation_loss(places(0, 0), places(8, 6)).item() == pytest.approx(1)


def test_relation_loss_does_not_depend_on_batch_map_and_scales():
    expected = relation_loss(maps(1), maps(2))
    twice = [tuple(torch.cat([x, x]) for x in maps(seed)) for seed in (1, 2)]
    large = [tuple(x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in maps(seed)) for seed in (1, 2)]
    scaled = [tuple(3 * x for x in maps(seed)) for seed in (1, 2)]
    far_apart = [tuple(100 * x for x in maps(1)), tuple(0.01 * x for x in maps(2))]
    for pair in (twice, large, scaled, far_apart):
        torch.testing.assert_close(relation_loss(*pair), expected)


def test_relation_loss_has_the_gradient_of_its_differences():
    teacher = tuple(x.double() for x in maps(2))
    assert_gradient(lambda first, second: relation_loss((first, second), teacher), *maps(1))


def test_mkd_has_a_term_for_every_part_and_stage():
    parts = [f"{part}/{stage}" for stage in STAGES for part in ("attention", "guide", "explore")]
    assert sorted(terms_of()) == sorted(f"mkd/{name}" for name in ("soft", "relation/stage1-stage2", *parts))


def test_mkd_parts_are_those_of_the_methods_it_joins():
    terms = terms_of(temperature=2.0)
    torch.testing.assert_close(terms["mkd/soft"], kd_loss(feature(4, 10, seed=1), feature(4, 10), 2.0))
    maps = features(4, 8, seed=10)["stage2"], features(4, 6)["stage2"]
    torch.testing.assert_close(terms["mkd/attention/stage2"], attention_loss(*maps, 2, "squared"))


def test_mkd_standardizes_logits():
    terms = terms_of(standardize=True, temperature=2.0)
    student, teacher = (z - z.mean(1, keepdim=True) for z in (feature(4, 10, seed=1), feature(4, 10)))
    expected = kd_loss(student / student.std(1, keepdim=True), teacher / teacher.std(1, keepdim=True), 2.0)
    torch.testing.assert_close(terms["mkd/soft"], expected, rtol=1e-4, atol=1e-6)


def test_mkd_teaches_nothing_to_a_student_that_has_the_teachers_features():
    """Through guides that hand on what they get; what explores then has all to learn."""
    known = network(4, 8)
    stages = GuidedStages([(stage, stage) for stage in STAGES], known, known).eval()  # BN is the identity then
    for guide in stages.guides.values():
        nn.init.dirac_(guide.inherit.conv.weight)
    maps = features(4, 8)
    terms = stages(maps, maps)
    silent = {name: value.item() for name, value in terms.items() if not name.startswith("explore")}
    assert silent == pytest.approx(dict.fromkeys(silent, 0.0), abs=1e-5)
    assert len(silent) == 5
    assert min(terms[f"explore/{stage}"].item() for stage in STAGES) > 0.01


def test_mkd_explores_what_the_teacher_has_not():
    """A stage of two channels: one that is the teacher's, and one of the other sign in half of its places."""
    teacher = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])
    other = torch.tensor([[[[0.0, 1.0, 0.0, 1.0]]]])
    stages = GuidedStages([("stage1", "stage1")], network(2), network(1)).eval()
    found = []
    for weight in ([1.0, 0.0], [0.0, 1.0]):
        stages.guides["stage1"].explore.weight.data = torch.tensor(weight).reshape(1, 2, 1, 1)
        terms = stages({"stage1": torch.cat([teacher, other], dim=1)}, {"stage1": teacher})
        found.append(terms["explore/stage1"].item())
    assert found == pytest.approx([1.0, 0.0], abs=1e-6)


def test_mkd_exploration_trains_its_own_half_of_the_guide():
    known = network(4, 8)
    stages = GuidedStages([(stage, stage) for stage in STAGES], known, known)
    terms = stages(features(4, 8, seed=10), features(4, 8))
    (terms["explore/stage1"] + terms["explore/stage2"]).backward()
    assert all(p.grad is None for guide in stages.guides.values() for p in guide.inherit.parameters())
    assert all(guide.explore.weight.grad.any() for guide in stages.guides.values())


def test_mkd_weights_and_the_schedule_of_exploration():
    names = ("soft", "relation/stage1-stage2", "attention/stage1", "guide/stage1", "explore/stage1")
    early, late = (
        [term_weight(MethodUse(name="mkd"), Mkd.terms, f"mkd/{name}", progress) for name in names]
        for progress in (0.19, 0.2)
    )
    assert early == [1, 1, 1, 6, 0]
    assert late == [1, 1, 1, 6, 0.1]


def test_mkd_guides_lead_to_twice_the_teachers_width():
    stages = GuidedStages([("stage2", "stage2")], network(4, 8), network(4, 6))
    assert {name: tuple(p.shape) for name, p in stages.named_parameters() if p.dim() == 4} == {
        "guides.stage2.inherit.conv.weight": (6, 8, 1, 1),
        "guides.stage2.explore.weight": (6, 8, 1, 1),
    }


def built(terms):
    use = MethodUse.model_validate({"name": "mkd", "terms": terms})
    return build_methods([use], network(4, 8), [network(4, 8)])["mkd"]


def test_mkd_of_soft_targets_alone_has_no_layers_and_asks_for_no_features():
    method = built({"soft": {}, "*": {"weight": 0}})
    assert (list(method.parameters()), method.student_features, method.teacher_features) == ([], (), ())
    assert list(method(step())) == ["mkd/soft"]


@pytest.mark.parametrize(
    ("off", "layers"),
    [
        ("explore/*", {"stage1.inherit", "stage2.inherit"}),
        ("explore/stage2", {"stage1.inherit", "stage1.explore", "stage2.inherit"}),
        ("relation/*", {"stage1.inherit", "stage1.explore", "stage2.inherit", "stage2.explore"}),
        ("guide/stage1", {"stage1.inherit", "stage1.explore", "stage2.inherit", "stage2.explore"}),
        ("[rg]*", {"stage1.explore", "stage2.explore"}),
    ],
)
def test_mkd_has_no_layers_that_only_a_term_of_weight_zero_would_need(off, layers):
    method = built({off: {"weight": 0}})
    names = {".".join(name.split(".")[2:4]) for name, _ in method.named_parameters()}
    assert names == layers


def test_mkd_leaves_out_maps_of_one_place():
    method = Mkd(MkdConfig(), network(4, 8, 16, 32), network(4, 8, 16, 32))  # sides 8, 4, 2, 1
    assert method.student_features == ("stage1", "stage2", "stage3")


SINGLE = pytest.mark.parametrize(("student", "stages"), [((4,), "auto"), ((4, 8), "last"), ((4, 8), ["stage2"])])


@SINGLE
def test_mkd_refuses_a_single_stage(student, stages):
    with pytest.raises(ModelError) as caught:
        build_methods([MethodUse(name="mkd", options={"stages": stages})], network(*student), [network(4, 8)])
    assert str(caught.value).splitlines() == [
        f"mkd: only one stage to compare, 'stage{len(student)}' of the student: "
        "the relation of layers takes a stage and the next one",
        "  name two or more pairs [student's, teacher's] in the option stages, or go without: "
        "terms: {relation/*: {weight: 0}}",
    ]


@SINGLE
def test_mkd_of_a_single_stage_goes_without_relations(student, stages):
    options = {"stages": stages}
    use = MethodUse(name="mkd", options=options, terms={"relation/*": {"weight": 0}})
    method = build_methods([use], network(*student), [network(4, 8)])["mkd"]
    stage = f"stage{len(student)}"
    assert sorted(method(step(student, (4, 8)))) == sorted(["mkd/soft", *(f"mkd/{part}/{stage}" for part in PARTS)])
    check_terms(use, [*method.silent, *method(step(student, (4, 8)))])


def test_mkd_refuses_a_teacher_of_other_classes():
    with pytest.raises(ModelError) as caught:
        Mkd(MkdConfig(), network(4, 8), network(4, 8, classes=100))
    assert str(caught.value).splitlines()[0] == (
        "mkd: the teacher scores 100 classes and the student 10: their probabilities are compared class by class"
    )


def detectors(student=None, teacher=None, **uses):
    student, teacher = student or FiveLevels(4), teacher or FiveLevels(6)
    use = MethodUse.model_validate({"name": "mkd"} | uses)
    return student, teacher, build_methods([use], student.network(), [teacher.network()])["mkd"]


def seen(network, names, images=2):
    with FeatureTap(network, names) as tap:
        return View(network(feature(images, 3, 128, 128)), dict(tap.features))


def detector_step(student, teacher, method):
    views = seen(student, method.student_features), seen(teacher, method.teacher_features)
    return Step(some_targets(2), torch.arange(2), *views, epoch=0, progress=0.5)


def test_mkd_of_detectors_has_its_parts_on_the_first_three_levels():
    student, teacher, method = detectors()
    terms = method(detector_step(student, teacher, method))
    parts = [f"{part}/{level}" for part in PARTS for level in ("p3", "p4", "p5")]
    expected = ("soft", "relation/p3-p4", "relation/p4-p5", *parts)
    assert sorted(terms) == sorted(f"mkd/{name}" for name in expected)


@pytest.mark.parametrize(("options", "temperature"), [({}, 1.0), ({"temperature": 2.0}, 2.0)])
def test_mkd_of_detectors_learns_the_scores_of_their_anchors(options, temperature):
    student, teacher, method = detectors(options=options)
    now = detector_step(student, teacher, method)
    expected = classification_loss(now.student.logits, now.taught.logits, student.network().layout, temperature)
    assert expected > 0
    torch.testing.assert_close(method(now)["mkd/soft"], expected)


def test_mkd_of_named_levels_takes_all_of_them():
    _, _, method = detectors(options={"stages": ["p3", "p4", "p5", "p6"]})
    assert method.student_features == ("p3", "p4", "p5", "p6")


def test_mkd_of_detectors_of_other_anchors_goes_without_soft_targets():
    teacher = FiveLevels(6, cells=3)
    with pytest.raises(ModelError) as caught:
        detectors(teacher=teacher)
    assert str(caught.value).startswith("mkd: student and teacher have other anchors, 682 and 1023")
    assert str(caught.value).endswith("terms: {soft: {weight: 0}}")
    student, teacher, method = detectors(teacher=teacher, terms={"soft": {"weight": 0}})
    assert "mkd/soft" not in method(detector_step(student, teacher, method))


def test_mkd_of_detectors_of_a_single_level():
    networks = {"student": FiveLevels(4, levels=1), "teacher": FiveLevels(6, levels=1)}
    with pytest.raises(ModelError, match="only one stage to compare, 'p3' of the student"):
        detectors(**networks)
    student, teacher, method = detectors(**networks, terms={"relation/*": {"weight": 0}})
    assert sorted(method(detector_step(student, teacher, method))) == [
        "mkd/attention/p3",
        "mkd/explore/p3",
        "mkd/guide/p3",
        "mkd/soft",
    ]


def test_mkd_refuses_to_standardize_a_detectors_logits():
    with pytest.raises(ModelError, match=r"^mkd: standardize is for classifiers"):
        detectors(options={"standardize": True})
