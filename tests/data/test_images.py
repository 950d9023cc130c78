"""Every reader on files written here in the published format."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.build import build_data
from kdedge.data.locate import LAYOUTS

RANDOM = np.random.default_rng(0)
FASHION = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def assert_holds(dataset, train, test):
    """Train and validation together are the training images, and test the test images, each (NHWC images, labels)."""
    for part, (images, labels) in ((dataset.train, train), (dataset.validation, train), (dataset.test, test)):
        indices = part.indices.numpy()
        assert (part.images.permute(0, 2, 3, 1).numpy() == images[indices]).all()
        assert (part.labels.numpy() == np.asarray(labels)[indices]).all()
    together = np.concatenate([dataset.train.indices, dataset.validation.indices])
    assert sorted(together) == list(range(len(train[0])))
    assert dataset.test.indices.tolist() == list(range(len(test[0])))
    assert dataset.image_shape == LAYOUTS[dataset.name].shape


def test_digits_are_the_bundled_images_in_a_fixed_stratified_split():
    dataset = build_data(Data(name="digits"), seed=0)
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (1437, 360)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.labels == tuple("0123456789")
    assert set(dataset.test.labels.bincount().tolist()) <= {35, 36, 37}  # 174 to 183 of each class, a fifth of them
    assert dataset.train.images.max() == 255  # 16 in the source
    assert build_data(Data(name="digits"), seed=1).test.images.equal(dataset.test.images)


def write_cifar(folder, monkeypatch, reader, batches, meta):
    """`batches` are (file, labels key, images, labels), the last one to test; their hashes count as published."""
    folder.mkdir()
    hashes = []
    for name, key, images, labels in batches:
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # red, green, then blue, each row by row
        (folder / name).write_bytes(pickle.dumps({"data": rows, key: labels}, protocol=2))
        hashes.append([name, md5(folder / name)])
    (folder / reader.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))
    monkeypatch.setattr(reader, "train_list", hashes[:-1])
    monkeypatch.setattr(reader, "test_list", hashes[-1:])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": md5(folder / reader.meta["filename"])})


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    images, labels = pixels(60, 32, 32, 3), [index % 10 for index in range(60)]
    parts = [slice(start, start + 10) for start in range(0, 60, 10)]
    files = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    batches = [(file, "labels", images[part], labels[part]) for file, part in zip(files, parts, strict=True)]
    names = [f"class {label}" for label in range(10)]
    write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch, CIFAR10, batches, {"label_names": names})
    return images, labels


def test_cifar10_reads_the_five_batches_in_order(cifar10, tmp_path):
    images, labels = cifar10
    dataset = build_data(Data(name="cifar10", root=str(tmp_path)), seed=0)
    assert_holds(dataset, (images[:50], labels[:50]), (images[50:], labels[50:]))
    assert dataset.labels[3] == "class 3"


def test_cifar10_refuses_a_batch_that_is_not_the_published_one(cifar10, tmp_path):
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"cifar-10-batches-py is incomplete or damaged: Dataset not found or corrupted\."
    ) as caught:
        build_data(Data(name="cifar10", root=str(tmp_path)), seed=0)
    assert caught.value.fix.startswith("python -c")


def test_cifar100_reads_the_fine_labels(tmp_path, monkeypatch):
    images, labels = pixels(300, 32, 32, 3), [index % 100 for index in range(300)]
    batches = [
        ("train", "fine_labels", images[:200], labels[:200]),
        ("test", "fine_labels", images[200:], labels[200:]),
    ]
    meta = {"fine_label_names": [f"fine {label}" for label in range(100)], "coarse_label_names": ["coarse"] * 20}
    write_cifar(tmp_path / "cifar-100-python", monkeypatch, CIFAR100, batches, meta)
    dataset = build_data(Data(name="cifar100", root=str(tmp_path)), seed=0)
    assert_holds(dataset, (images[:200], labels[:200]), (images[200:], labels[200:]))
    assert dataset.labels[99] == "fine 99"


def test_svhn_reads_matlab_files_and_turns_label_10_into_0(tmp_path, monkeypatch):
    images, labels = pixels(40, 32, 32, 3), np.arange(40) % 10
    published = dict(SVHN.split_list)
    for part, rows in (("train", slice(0, 30)), ("test", slice(30, 40))):
        path = tmp_path / f"{part}_32x32.mat"
        y = np.where(labels[rows] == 0, 10, labels[rows])[:, None]
        scipy.io.savemat(path, {"X": images[rows].transpose(1, 2, 3, 0), "y": y.astype(np.uint8)})
        published[part] = ["", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", published)
    dataset = build_data(Data(name="svhn", root=str(tmp_path)), seed=0)
    assert_holds(dataset, (images[:30], labels[:30]), (images[30:], labels[30:]))


def write_stl10(folder, monkeypatch, images, labels):
    folder.mkdir()
    for part, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        columns = images[rows].transpose(0, 3, 2, 1)  # channel by channel, column by column
        (folder / f"{part}_X.bin").write_bytes(columns.tobytes())
        (folder / f"{part}_y.bin").write_bytes((labels[rows] + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")
    for split in ("train_list", "test_list"):
        hashes = [[name, md5(folder / name)] for name, _ in getattr(STL10, split)]
        monkeypatch.setattr(STL10, split, hashes)


def test_stl10_reads_column_major_files_with_labels_from_1(tmp_path, monkeypatch):
    images, labels = pixels(30, 96, 96, 3), np.arange(30) % 10
    write_stl10(tmp_path / "stl10_binary", monkeypatch, images, labels)
    (tmp_path / "stl10_binary" / "class_names.txt").write_text("\n".join(f"class {label}" for label in range(10)))
    dataset = build_data(Data(name="stl10", root=str(tmp_path)), seed=0)
    assert_holds(dataset, (images[:20], labels[:20]), (images[20:], labels[20:]))
    assert dataset.labels[9] == "class 9"


def test_stl10_needs_its_class_names(tmp_path, monkeypatch):
    write_stl10(tmp_path / "stl10_binary", monkeypatch, pixels(30, 96, 96, 3), np.arange(30) % 10)
    with pytest.raises(DataError, match=r"stl10_binary is incomplete or damaged: class_names\.txt is missing"):
        build_data(Data(name="stl10", root=str(tmp_path)), seed=0)


def write_idx(path, array, packed):
    content = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path = path.with_name(path.name + ".gz") if packed else path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def write_fashion(folder, packed=False):
    """Forty 28x28 gray images; returns them as (train, test) in NHWC, and the files."""
    images, labels = pixels(40, 28, 28), (np.arange(40) % 10).astype(np.uint8)
    arrays = (images[:30], labels[:30], images[30:], labels[30:])
    paths = [write_idx(folder / name, array, packed) for name, array in zip(FASHION, arrays, strict=True)]
    return (images[:30, ..., None], labels[:30]), (images[30:, ..., None], labels[30:]), paths


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_reads_torchvisions_folder(packed, tmp_path):
    train, test, _ = write_fashion(tmp_path / "FashionMNIST" / "raw", packed)
    dataset = build_data(Data(name="fashion_mnist", root=str(tmp_path)), seed=0)
    assert_holds(dataset, train, test)
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.labels[9] == "Ankle boot"


def test_fashion_mnist_reads_the_systems_package_when_the_root_has_none(tmp_path, monkeypatch):
    layout = LAYOUTS["fashion_mnist"]
    assert layout.places[-1] == "/usr/share/datasets/fashion-mnist"
    monkeypatch.setitem(
        LAYOUTS, "fashion_mnist", layout._replace(places=(*layout.places[:-1], str(tmp_path / "system")))
    )
    train, test, _ = write_fashion(tmp_path / "system", packed=True)
    assert_holds(build_data(Data(name="fashion_mnist", root=str(tmp_path / "none")), seed=0), train, test)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("file", range(4))
def test_fashion_mnist_names_the_file_that_is_cut_off(packed, file, tmp_path):
    path = write_fashion(tmp_path / "FashionMNIST" / "raw", packed)[2][file]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is not a whole gzip file" if packed else "or is cut off") as caught:
        build_data(Data(name="fashion_mnist", root=str(tmp_path)), seed=0)
    assert caught.value.what.startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00"])
def test_fashion_mnist_names_the_file_that_is_no_idx_file(content, tmp_path):
    path = write_fashion(tmp_path / "FashionMNIST" / "raw")[2][1]
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is not an IDX file of bytes"):
        build_data(Data(name="fashion_mnist", root=str(tmp_path)), seed=0)


def test_fashion_mnist_names_the_file_that_is_missing(tmp_path):
    write_fashion(tmp_path / "FashionMNIST" / "raw")[2][2].unlink()
    with pytest.raises(DataError, match=r"has neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte\.gz"):
        build_data(Data(name="fashion_mnist", root=str(tmp_path)), seed=0)


@pytest.fixture
def tiny(tmp_path):
    """Two classes, 4 training images each and 2 test images together; the words are not in the order of the ids."""
    root = tmp_path / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    (root / "words.txt").write_text("n02\tEgyptian cat\nn01\tgoldfish, Carassius auratus\nn99\tnever seen\n")
    for wnid in ("n02", "n01"):
        (root / "train" / wnid / "images").mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((64, 64, 3), 50 * number, np.uint8)).save(
                root / "train" / wnid / "images" / f"{number}.JPEG"
            )
    for number in range(2):
        Image.fromarray(np.full((64, 64), 100 + number, np.uint8)).save(
            root / "val" / "images" / f"val_{number}.JPEG"
        )  # gray
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t63\t63\nval_1.JPEG\tn01\t0\t0\t63\t63\n")
    return root


def test_tiny_imagenet_tests_on_the_annotated_images(tiny, tmp_path):
    dataset = build_data(Data(name="tiny_imagenet", root=str(tmp_path), validation=0.25), seed=0)
    assert dataset.labels == ("goldfish", "Egyptian cat")
    assert dataset.image_shape == (3, 64, 64)
    assert dataset.test.labels.tolist() == [1, 0]
    assert dataset.test.images[:, 1, 30, 30].tolist() == [100, 101]
    assert dataset.test.images[:, 2, 30, 30].tolist() == [100, 101]
    for part, size in ((dataset.train, 6), (dataset.validation, 2)):
        assert len(part) == size
        assert part.images[:, 0, 0, 0].tolist() == [50 * (index // 2) for index in part.indices.tolist()]
        assert part.labels.tolist() == [index % 2 for index in part.indices.tolist()]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("val_0.JPEG\tn02\nval_1.JPEG\tn03\n", r"val_annotations\.txt:2: unknown class 'n03'"),
        ("val_0.JPEG n02\n", r"val_annotations\.txt:1: 'val_0\.JPEG n02' has one field"),
        ("val_7.JPEG\tn02\n", r"val_7\.JPEG is not there: there is no such file"),
        ("", r"val_annotations\.txt lists no images"),
    ],
)
def test_tiny_imagenet_names_the_annotation_that_is_wrong(annotations, message, tiny, tmp_path):
    (tiny / "val" / "val_annotations.txt").write_text(annotations)
    with pytest.raises(DataError, match=message):
        build_data(Data(name="tiny_imagenet", root=str(tmp_path), validation=0.25), seed=0)


def test_tiny_imagenet_names_the_image_that_is_broken(tiny, tmp_path):
    broken = tiny / "train" / "n02" / "images" / "2.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match="is not an image that can be decoded") as caught:
        build_data(Data(name="tiny_imagenet", root=str(tmp_path)), seed=0)
    assert caught.value.what.startswith(str(broken))


def test_tiny_imagenet_names_the_image_of_another_size(tiny, tmp_path):
    odd = tiny / "train" / "n02" / "images" / "2.JPEG"
    Image.new("RGB", (32, 48)).save(odd)
    with pytest.raises(DataError, match=r"2\.JPEG is 32x48: the others are 64x64"):
        build_data(Data(name="tiny_imagenet", root=str(tmp_path)), seed=0)


def test_tiny_imagenet_says_which_file_is_missing(tiny, tmp_path):
    (tiny / "words.txt").unlink()
    with pytest.raises(DataError, match=r"words\.txt cannot be read: No such file"):
        build_data(Data(name="tiny_imagenet", root=str(tmp_path)), seed=0)
