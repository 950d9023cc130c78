import pytest
import torch

from kdedge.core.quality import uncounted
from kdedge.core.recipe import Augment
from kdedge.data.boxes import Window, classes_of, fitted, mirror, pack, show_boxes, show_image, strata, unpack, whole
from kdedge.data.boxes_augment import BoxView, iou_crop, zoom


def rows(*boxes):
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)


def test_pack_fills_with_rows_that_are_no_box_and_unpack_takes_them_off():
    found = [rows((1, 2, 3, 4, 5)), rows(), rows((0, 0, 0, 1, 1), (2, 5, 5, 9, 9))]
    targets = pack(found)
    none = [-1, 0, 0, 0, 0]
    assert targets.tolist() == [[[1, 2, 3, 4, 5], none], [none, none], [[0, 0, 0, 1, 1], [2, 5, 5, 9, 9]]]
    assert targets.dtype == torch.float32
    assert all(unpack(target).equal(boxes) for target, boxes in zip(targets, found, strict=True))


def test_pack_has_a_row_where_no_image_has_a_box():
    assert pack([rows()]).tolist() == [[[-1, 0, 0, 0, 0]]]


def test_classes_and_strata_of_labels_are_the_labels():
    labels = torch.tensor([2, 0, 1])
    assert classes_of(labels).equal(labels)
    assert strata(labels).equal(labels)


def test_strata_of_targets_are_the_class_on_the_fewest_images():
    """Class 0 is on three images, 1 on two, 2 on one; how often it is there does not count."""
    box = (0, 0, 1, 1)
    targets = pack(
        [rows((0, *box), (1, *box)), rows((0, *box), (0, *box)), rows(), rows((2, *box), (0, *box), (1, *box))]
    )
    assert strata(targets).tolist() == [1, 0, -1, 2]
    assert sorted(classes_of(targets).tolist()) == [0, 0, 0, 0, 1, 1, 2]


def test_strata_without_any_box():
    assert strata(pack([rows(), rows()])).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("height", "width", "found"), [(480, 640, (24, 32)), (640, 480, (32, 24)), (1, 640, (1, 32)), (5, 5, (32, 32))]
)
def test_fitted_fills_the_square_with_the_longer_side(height, width, found):
    assert fitted(height, width, 32) == found


def test_show_image_puts_the_whole_picture_into_the_corner_of_a_gray_square():
    picture = torch.full((3, 2, 4), 200, dtype=torch.uint8)
    shown = show_image(picture, whole(picture), 8)
    assert (shown[:, :4] == 200).all()
    assert (shown[:, 4:] == 114).all()
    assert tuple(shown.shape) == (3, 8, 8)


def test_show_image_leaves_pixels_that_need_not_be_scaled():
    picture = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    assert show_image(picture, whole(picture), 4).equal(picture)
    shown = show_image(picture, Window(1, 2, 2, 2), 2)
    assert shown[0].tolist() == [[9, 10], [13, 14]]


def test_show_image_is_gray_beyond_the_picture():
    picture = torch.full((3, 2, 2), 7, dtype=torch.uint8)
    shown = show_image(picture, Window(-1, -2, 4, 4), 4)
    assert shown[0].tolist() == [[114] * 4, [114] * 4, [114, 7, 7, 114], [114, 7, 7, 114]]


def test_show_boxes_scales_with_the_longer_side_of_the_window():
    moved = show_boxes(rows((3, 10, 20, 30, 40)), Window(10, 0, 40, 50), 25)
    assert moved.tolist() == [[3, 0, 10, 10, 20]]


def test_show_boxes_clips_and_keeps_those_with_a_fifth_of_their_area():
    """The window begins at x = 10: of boxes 10 wide, 2, 1.9 and 0 pixels of width are left."""
    boxes = rows((0, 2, 0, 12, 10), (1, 1.9, 0, 11.9, 10), (2, 0, 0, 10, 10))
    assert show_boxes(boxes, Window(10, 0, 20, 20), 20).tolist() == [[0, 0, 0, 2, 10]]


def test_show_boxes_without_boxes():
    assert show_boxes(rows(), Window(0, 0, 4, 4), 8).shape == (0, 5)


def test_mirror_by_hand():
    assert mirror(rows((1, 2, 3, 4, 7)), 10).tolist() == [[1, 6, 3, 8, 7]]
    assert mirror(mirror(rows((1, 2, 3, 4, 7)), 10), 10).tolist() == [[1, 2, 3, 4, 7]]


def test_box_view_without_augmentation_shows_the_whole_picture_and_draws_nothing():
    picture = torch.randint(256, (3, 4, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    found = [(1, 2, 1, 6, 3), (uncounted(1), 0, 0, 4, 4)]
    shown, target = BoxView(8, Augment())(picture, pack([rows(*found)], 3)[0])
    assert shown[:, :4].equal(picture)
    assert target.tolist() == [*map(list, found), [-1, 0, 0, 0, 0]]
    assert torch.get_rng_state().equal(before)


MOVING = Augment(flip=True, zoom=(0.5, 2.0), iou_crop=True, color=0.1)


def test_box_view_moves_boxes_with_the_picture():
    """A white rectangle on black: wherever it is shown, its box is around it, to a pixel of resampling."""
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    picture[:, 20:40, 30:60] = 255
    target, view, seen = pack([rows((0, 30, 20, 60, 40))], 3)[0], BoxView(64, MOVING), set()
    for seed in range(60):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shown, moved = view(picture, target)
        boxes = unpack(moved)
        assert len(boxes) <= 1
        if len(boxes) == 0:
            continue
        lit = (shown[0] > 170).nonzero()
        (top, left), (bottom, right) = lit.amin(dim=0).tolist(), (lit.amax(dim=0) + 1).tolist()
        assert boxes[0, 1:].tolist() == pytest.approx([left, top, right, bottom], abs=1.6)
        seen.add(tuple(boxes[0].tolist()))
    assert len(seen) > 50


def test_zoom_shows_a_part_or_adds_gray_in_the_pictures_shape():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        larger = [zoom(Window(0, 0, 80, 60), (2.0, 2.0)) for _ in range(50)]
        smaller = [zoom(Window(0, 0, 80, 60), (0.5, 0.5)) for _ in range(50)]
    assert {(w.width, w.height) for w in larger} == {(40, 30)}
    assert all(0 <= w.left <= 40 and 0 <= w.top <= 30 for w in larger)
    assert {(w.width, w.height) for w in smaller} == {(160, 120)}
    assert all(-80 <= w.left <= 0 and -60 <= w.top <= 0 for w in smaller)
    assert len({w.left for w in larger}) > 10


def test_iou_crop_stays_inside_the_window_and_keeps_the_center_of_a_box():
    boxes, window = rows((0, 30, 20, 60, 40)), Window(-10, -5, 100, 70)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        crops = [iou_crop(window, boxes) for _ in range(60)]
    for crop in crops:
        assert -10 <= crop.left < 45 < crop.left + crop.width <= 90
        assert -5 <= crop.top < 30 < crop.top + crop.height <= 65
    assert len(set(crops)) > 30
    assert window in crops
