"""Images: Fashion-MNIST, the user's own folders of any file, splits and sizes."""

import gzip
import subprocess

import numpy as np
import pytest
from PIL import Image

from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.data.image_folders import load_folder, read_image
from tfcourse.data.images import (
    Images,
    few_per_class,
    hold_out,
    resize,
    smallest_class,
    subset_per_class,
    to_rgb,
)

RED = (255, 0, 0)


def write_class(folder, count, seed=0, size=(12, 10)):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


@pytest.fixture
def pets(tmp_path):
    write_class(tmp_path / "pets/cat", 10, seed=1)
    write_class(tmp_path / "pets/dog", 20, seed=2)
    return tmp_path / "pets"


def numbered(*counts):
    """One class per count; every image is another shade."""
    labels = np.repeat(np.arange(len(counts)), counts)
    shades = np.arange(len(labels), dtype=np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (len(labels), 4, 4, 1)).copy()
    return Images(images, labels, tuple(f"class{i}" for i in range(len(counts))))


def contents(images):
    return [image.tobytes() for image in images.images]


def test_the_vendored_subset_is_balanced():
    train, test = load_fashion_mnist()
    assert train.images.shape == (5000, 28, 28, 1)
    assert test.images.shape == (1000, 28, 28, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    assert set(np.bincount(train.labels)) == {500}
    assert set(np.bincount(test.labels)) == {100}
    assert len(train.class_names) == 10
    assert not set(contents(train)) & set(contents(test))


def test_the_labels_of_both_parts_mean_the_same():
    """The nearest class mean finds two in three; a shifted label would find one in ten."""
    train, test = (part.take(np.arange(len(part))) for part in load_fashion_mnist())
    pixels = train.images.reshape(len(train), -1).astype(float)
    means = np.stack([pixels[train.labels == label].mean(axis=0) for label in range(10)])
    distances = ((test.images.reshape(len(test), 1, -1) - means) ** 2).sum(axis=2)
    assert np.mean(distances.argmin(axis=1) == test.labels) > 0.6
    trouser = means[train.class_names.index("Trouser")].reshape(28, 28)
    assert trouser[:, 9:19].mean() > 50 * trouser[:, :6].mean()


def test_the_subset_is_the_stated_part_of_the_full_set(tmp_path, monkeypatch):
    command = ["apt-get", "download", "dataset-fashion-mnist=0.0~git20200523.55506a9-1"]
    try:
        tried = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("apt-get is not installed")
    if tried.returncode:
        pytest.skip("no Debian package can be had here: no registry, or no package lists")
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    full = load_fashion_mnist(full=True)
    assert [len(part) for part in full] == [60_000, 10_000]
    for part, whole, step in zip(load_fashion_mnist(), full, (12, 10), strict=True):
        every = [np.flatnonzero(whole.labels == label)[::step] for label in range(10)]
        expected = whole.take(np.sort(np.concatenate(every)))
        np.testing.assert_array_equal(part.images, expected.images)
        np.testing.assert_array_equal(part.labels, expected.labels)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_official(folder):
    folder.mkdir(parents=True)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = np.arange(count * 784).astype(np.uint8).reshape(count, 28, 28)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)


def test_the_official_files_are_read_where_they_are(tmp_path, monkeypatch):
    write_official(tmp_path / "datasets/fashion-mnist")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for train, test in (
        load_fashion_mnist(full=True),
        load_fashion_mnist(folder=tmp_path / "datasets/fashion-mnist"),
    ):
        assert (len(train), len(test)) == (30, 20)
        assert train.images[1, 0, 0, 0] == 784 % 256
        assert test.labels[13] == 3


def test_a_damaged_official_file_is_named(tmp_path):
    write_official(tmp_path / "fm")
    path = tmp_path / "fm/t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[:-20], gzip.compress(b"\0\0\x08\x03short")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz must be a whole"):
            load_fashion_mnist(folder=tmp_path / "fm")
    write_idx(path, np.zeros((20, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"t10k files in .* must be those of Fashion-MNIST"):
        load_fashion_mnist(folder=tmp_path / "fm")


def test_without_the_full_set_the_alternative_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"apt-get.*or give the folder with the four") as caught:
        load_fashion_mnist(full=True)
    assert "\n" not in str(caught.value)


def save(path, image, **options):
    image.save(path, **options)
    return path


def test_every_colour_mode_becomes_rgb(tmp_path):
    size = (8, 8)
    half = Image.new("RGBA", size, (255, 0, 0, 0))
    grey16 = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    palette = Image.new("P", size, 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    transparent = palette.copy()
    transparent.info["transparency"] = 1
    cases = [
        (save(tmp_path / "l.png", Image.new("L", size, 77)), (77, 77, 77)),
        (save(tmp_path / "1.png", Image.new("1", size, 1)), (255, 255, 255)),
        (save(tmp_path / "rgb.bmp", Image.new("RGB", size, RED)), RED),
        (save(tmp_path / "p.png", palette), RED),
        (save(tmp_path / "p.gif", palette), RED),
        (save(tmp_path / "p_alpha.png", transparent, transparency=1), (255, 255, 255)),
        (save(tmp_path / "rgba.png", half), (255, 255, 255)),
        (save(tmp_path / "rgba.webp", half, lossless=True, exact=True), (255, 255, 255)),
        (save(tmp_path / "half.png", Image.new("RGBA", size, (0, 0, 0, 51))), (204, 204, 204)),
        (save(tmp_path / "la.png", Image.new("LA", size, (0, 255))), (0, 0, 0)),
        (save(tmp_path / "i16.png", grey16), (128, 128, 128)),
        (save(tmp_path / "i16.tif", grey16), (128, 128, 128)),
        (save(tmp_path / "cmyk.tif", Image.new("CMYK", size, (0, 255, 255, 0))), RED),
    ]
    for path, colour in cases:
        image = read_image(path, (4, 6))
        assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8), path.name
        assert image.min(axis=(0, 1)).tolist() == list(colour), path.name
        assert image.max(axis=(0, 1)).tolist() == list(colour), path.name
    jpeg = read_image(
        save(tmp_path / "cmyk.jpg", Image.new("CMYK", size, (0, 255, 255, 0))), (4, 4)
    )
    assert np.abs(jpeg.astype(int) - RED).max() < 8


def test_a_rotated_photo_is_turned_upright(tmp_path):
    """EXIF orientation 6: the camera's top is on the left of what is stored."""
    pixels = np.zeros((1600, 3200, 3), np.uint8)
    pixels[:, :1600] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif)
    image = read_image(path, (32, 16))
    assert image[:15].min() > 250
    assert image[17:].max() < 5


def test_resizing_averages(tmp_path):
    """Fine stripes become grey: without antialiasing they would stay black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    image = read_image(save(tmp_path / "a.png", Image.fromarray(stripes)), (8, 8))
    assert np.abs(image.astype(int) - 127).max() <= 8
    data = Images(stripes[None, :, :, :1], np.zeros(1, np.int64), ("stripes",))
    assert np.abs(resize(data, (8, 8)).images.astype(int) - 127).max() <= 8


def test_a_jpeg_keeps_its_detail(tmp_path):
    """A JPEG may be decoded at a smaller size, but never at one below the size asked for."""
    stripes = np.repeat(np.arange(256) // 4 % 2 * 255, 256).reshape(256, 256).astype(np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(stripes))
    image = read_image(path, (128, 64))
    assert image[::4].max() < 60
    assert image[2::4].min() > 195


def test_odd_metadata_is_no_reason_to_skip_a_photo(pets, capsys):
    """Pillow warns of it; warnings are errors in these tests."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03"
    save(pets / "cat/odd.jpg", Image.new("RGB", (8, 8), RED), exif=exif)
    with pytest.raises(ValueError, match="Corrupt EXIF data"):
        read_image(pets / "cat/odd.jpg", (4, 4))
    train, test = load_folder(pets, (4, 4))
    assert len(train) + len(test) == 31
    assert capsys.readouterr().err == ""


def test_what_is_no_image_is_one_line(tmp_path):
    whole = save(tmp_path / "a.png", Image.effect_noise((64, 64), 50)).read_bytes()
    for name, data in (("cut.png", whole[:900]), ("text.jpg", b"hello"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} is not a") as caught:
            read_image(tmp_path / name, (8, 8))
        assert "\n" not in str(caught.value)
    save(tmp_path / "float.tif", Image.new("F", (8, 8), 0.5))
    with pytest.raises(ValueError, match="floating-point pixels"):
        read_image(tmp_path / "float.tif", (8, 8))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing\.png"):
        read_image(tmp_path / "missing.png", (8, 8))
    with pytest.raises(ValueError, match=r"image_size must be .*, got \(0, 8\)"):
        read_image(tmp_path / "a.png", (0, 8))


def test_a_folder_is_split_class_by_class(pets):
    train, test = load_folder(pets, (6, 5), test_fraction=0.3)
    assert train.images.shape == (21, 6, 5, 3)
    assert train.class_names == test.class_names == ("cat", "dog")
    assert np.bincount(train.labels).tolist() == [7, 14]
    assert np.bincount(test.labels).tolist() == [3, 6]
    again = load_folder(pets, (6, 5), test_fraction=0.3)
    np.testing.assert_array_equal(test.images, again[1].images)
    other = load_folder(pets, (6, 5), test_fraction=0.3, seed=1)
    assert contents(other[1]) != contents(test)


def test_labels_belong_to_their_images(pets):
    dogs = {read_image(path, (6, 5)).tobytes() for path in (pets / "dog").iterdir()}
    for part in load_folder(pets, (6, 5)):
        assert [image in dogs for image in contents(part)] == (part.labels == 1).tolist()


def test_copies_stay_on_one_side(pets):
    """Also across classes, and also when there are more copies than the held-out part takes."""
    for i in range(10):
        for copy in ("cat/copy", "cat/again", "dog/copy"):
            (pets / f"{copy}{i}.png").write_bytes((pets / f"cat/{i:03}.png").read_bytes())
    for seed in range(5):
        train, test = load_folder(pets, (6, 5), seed=seed)
        assert len(train) + len(test) == 60
        assert not set(contents(train)) & set(contents(test))
        assert set(test.labels) == set(train.labels) == {0, 1}


def test_unreadable_files_are_named_and_skipped(pets, capsys):
    for i in range(12):
        (pets / f"cat/broken{i:02}.jpg").write_bytes(b"no image")
    (pets / "cat/notes.txt").write_text("notes")
    (pets / "cat/.hidden.png").write_bytes(b"")
    (pets / "dog/inner").mkdir()
    (pets / "README").write_text("read me")
    (pets / ".git").mkdir()
    train, test = load_folder(pets, (6, 5))
    assert len(train) + len(test) == 30
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == ""
    assert "ignored 4 files or folders" in lines[0]
    assert ["broken00.jpg" in lines[1], "broken09.jpg" in lines[10]] == [True, True]
    assert lines[11:] == ["... and 2 more"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "at least 2 class folders, got none"),
        (["cat/a.png", "cat/b.png"], "at least 2 class folders, got only 'cat'"),
        (["cat/a.png", "cat/b.png", "dog/"], "dog must hold a readable image, got none"),
        (["cat/a.png", "cat/b.png", "dog/bad.png"], "dog must hold a readable image, got none"),
        (["cat/bad.png", "dog/bad.png"], "must hold readable images, got none in 2 files"),
        (["cat/a.png", "cat/b.png", "dog/a.png"], "class 'dog' must have at least 2 different"),
        (["train/x/a.png", "train/y/a.png", "test/x/a.png"], r"same classes, \['y'\] differ"),
    ],
)
def test_unusable_folders_are_refused(tmp_path, files, message):
    root = tmp_path / "root"
    root.mkdir()
    for i, name in enumerate(files):
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if name.endswith("bad.png"):
            path.write_bytes(b"bad")
        elif name.endswith(".png"):
            Image.new("L", (4, 4), i).save(path)
    with pytest.raises(ValueError, match=message) as caught:
        load_folder(root, (4, 4))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_bad_fraction_are_refused(pets):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        load_folder(pets / "nowhere", (4, 4))
    for fraction in (0, 1, -0.5):
        with pytest.raises(ValueError, match=f"between 0 and 1, got {fraction}"):
            load_folder(pets, (4, 4), test_fraction=fraction)


def test_a_given_split_is_kept(tmp_path, capsys):
    for part, count in (("train", 4), ("test", 2), ("val", 1)):
        write_class(tmp_path / part / "cat", count)
        write_class(tmp_path / part / "dog", count + 1, seed=1)
    train, test = load_folder(tmp_path, (6, 5))
    assert np.bincount(train.labels).tolist() == [4, 5]
    assert np.bincount(test.labels).tolist() == [2, 3]
    assert "ignored ['val'], which lie beside train and test" in capsys.readouterr().err


def test_many_images_are_read_in_order(tmp_path):
    """More than 200: with threads and a progress bar."""
    for label, shift in (("a", 0), ("b", 110)):
        (tmp_path / label).mkdir()
        for i in range(110):
            Image.new("L", (4, 4), i + shift).save(tmp_path / label / f"{i:03}.png")
    train, test = load_folder(tmp_path, (2, 2))
    shades = np.concatenate([train.images, test.images])[:, 0, 0, 0]
    assert sorted(shades.tolist()) == list(range(220))
    assert (np.concatenate([train.labels, test.labels]) == (shades >= 110)).all()


def test_hold_out_is_stratified_and_loses_nothing():
    images = numbered(10, 30, 2)
    rest, held = hold_out(images, 0.2, seed=3)
    assert np.bincount(held.labels).tolist() == [2, 6, 1]
    assert np.bincount(rest.labels).tolist() == [8, 24, 1]
    assert set(contents(rest)) | set(contents(held)) == set(contents(images))
    assert contents(hold_out(images, 0.2, seed=3)[1]) == contents(held)
    assert contents(hold_out(images, 0.2, seed=4)[1]) != contents(held)


def test_copies_larger_than_the_fraction_are_still_split():
    """Two images, each three times: one in five is less than either."""
    images = numbered(2, 10)
    doubled = images.take(np.concatenate([np.repeat([0, 1], 3), np.arange(2, 12)]))
    rest, held = hold_out(doubled, 0.2, seed=0)
    assert np.bincount(rest.labels).tolist() == [3, 8]
    assert np.bincount(held.labels).tolist() == [3, 2]


def test_hold_out_refuses_a_class_of_one():
    with pytest.raises(ValueError, match="class 'class1' must have at least 2 different"):
        hold_out(numbered(5, 1), 0.2, seed=0)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.0"):
        hold_out(numbered(5, 5), 1.0, seed=0)


def test_subsets_are_nested():
    images = numbered(20, 30)
    two, five = (subset_per_class(images, n, seed=1) for n in (2, 5))
    assert np.bincount(two.labels).tolist() == [2, 2]
    assert np.bincount(five.labels).tolist() == [5, 5]
    assert set(contents(two)) < set(contents(five))
    assert contents(subset_per_class(images, 5, seed=2)) != contents(five)
    for n in (0, 21):
        with pytest.raises(ValueError, match=f"n must be between 1 and 20, .*, got {n}"):
            subset_per_class(images, n, seed=1)


def test_grey_becomes_rgb_and_larger():
    images = numbered(3, 3)
    large = resize(to_rgb(images), (9, 7))
    assert large.images.shape == (6, 9, 7, 3)
    assert large.images[4].tolist() == np.full((9, 7, 3), 4).tolist()
    assert to_rgb(large) is large
    assert resize(images, (2, 3)).images.shape == (6, 2, 3, 1)
    two = Images(np.zeros((1, 4, 4, 2), np.uint8), np.zeros(1, np.int64), ("x",))
    for change in (to_rgb, lambda data: resize(data, (2, 2))):
        with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
            change(two)


def test_the_package_needs_no_tensorflow():
    import sys

    code = "import sys, tfcourse.data.images; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_tiny_run_has_as_many_of_each_class_as_the_smallest_allows():
    labels = np.array([0, 1, 1, 0, 1, 0, 1])
    images = Images(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), labels, ("a", "b"))
    assert smallest_class(images) == 3
    assert np.bincount(few_per_class(images, 2).labels).tolist() == [2, 2]
    assert np.bincount(few_per_class(images, 9).labels).tolist() == [3, 3]
