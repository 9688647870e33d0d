"""Labelled images as arrays: Fashion-MNIST (Xiao et al., 2017), or the user's own folder.

https://arxiv.org/abs/1708.07747
"""

import gzip
import hashlib
import os
import sys
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tfcourse.data.sources import SOURCES, fetch

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SHOWN = 10  # how many unreadable files are named


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    Attributes:
        images: uint8, `(n, height, width, channels)`, 0 to 255.
        labels: int64, `(n,)`, positions in `class_names`.
        class_names: What the labels mean.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Images":
        """Return the images at these positions, in this order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def load_fashion_mnist(
    *, full: bool = False, folder: str | Path | None = None
) -> tuple[Images, Images]:
    """Load Fashion-MNIST: 28x28 grey pictures of ten kinds of clothes.

    The default comes with this package: 500 training and 100 test images per class. They are
    `subset_per_class(train, 500, seed=0)` and `subset_per_class(test, 100, seed=0)` of the
    official parts.

    Args:
        full: Load all 60,000 and 10,000 images: from `folder`, from where Keras keeps its own
            download, or by `fetch("fashion-mnist")`.
        folder: Where the four official `.gz` files are; implies `full`.

    Returns:
        The training part and the test part, images `(n, 28, 28, 1)`.

    Raises:
        ValueError: If a file is damaged.
        OSError: If the full set can't be had; the message tells the alternatives.
    """
    if not full and folder is None:
        arrays = np.load(Path(__file__).parent / "fashion_mnist" / "subset.npz")
    else:
        arrays = _read_full(Path(folder) if folder is not None else _find_full())
    train, test = (
        Images(
            arrays[f"{part}_images"][..., np.newaxis],
            arrays[f"{part}_labels"].astype(np.int64),
            FASHION_CLASSES,
        )
        for part in ("train", "test")
    )
    return train, test


def _find_full() -> Path:
    members = SOURCES["fashion-mnist"].members
    kept = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "datasets/fashion-mnist")
    if all((kept / Path(member).name).is_file() for member in members):
        return kept
    try:
        return (fetch("fashion-mnist") / next(iter(members))).parent
    except OSError as error:
        raise OSError(
            f"{error}; or give the folder with the four official .gz files, "
            "as keras.datasets.fashion_mnist.load_data() leaves them"
        ) from error


def _read_full(folder: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        if images.shape != (len(labels), 28, 28) or labels.max() >= len(FASHION_CLASSES):
            raise ValueError(f"the {prefix} files in {folder} must be those of Fashion-MNIST")
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    return arrays


def _read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of bytes: 0, 0, 8, rank, big-endian dimensions, data."""
    try:
        with gzip.open(path) as file:
            data = file.read()
        shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (gzip.BadGzipFile, zlib.error, EOFError, IndexError, ValueError) as error:
        raise ValueError(f"{path} must be a whole, gzipped IDX file") from error


def load_folder(
    folder: str | Path,
    image_size: tuple[int, int],
    *,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> tuple[Images, Images]:
    """Load the user's own images: one folder per class, of any size and colour mode.

    Images become RGB and are resized without cropping, so their aspect may change. If `folder`
    holds `train/` and `test/` with class folders, that is the split; otherwise `hold_out` makes
    one. What can't be read is named on stderr and skipped; other files are counted.

    Args:
        folder: The folder of class folders; images lie directly in these.
        image_size: `(height, width)` in pixels.
        test_fraction: Part of each class that is held out, between 0 and 1.
        seed: Seed of the split, which depends on nothing but it and the sorted files.

    Returns:
        The training part and the test part.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are fewer than two classes, a class without a readable image or too
            small to be split, or `train/` and `test/` have different classes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    _check_size(image_size)
    parts = [folder / "train", folder / "test"]
    if not all(part.is_dir() and _folders_in(part) for part in parts):
        _check_fraction(test_fraction)
        return hold_out(_read_classes(folder, image_size), test_fraction, seed)
    names = [[path.name for path in _folders_in(part)] for part in parts]
    if names[0] != names[1]:
        only = sorted(set(names[0]) ^ set(names[1]))
        raise ValueError(f"{folder}: train and test must have the same classes, {only} differ")
    if others := [path.name for path in _folders_in(folder) if path not in parts]:
        _say(f"{folder}: ignored {others}, which lie beside train and test")
    train, test = (_read_classes(part, image_size) for part in parts)
    return train, test


def _folders_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_classes(folder: Path, image_size: tuple[int, int]) -> Images:
    classes = _folders_in(folder)
    if len(classes) < 2:
        got = f"only {classes[0].name!r}" if classes else "none"
        raise ValueError(f"{folder} must hold at least 2 class folders, got {got}")
    entries = [(label, path) for label, c in enumerate(classes) for path in sorted(c.iterdir())]
    entries += [(-1, path) for path in folder.iterdir() if not path.is_dir()]
    files = [(label, path) for label, path in entries if label >= 0 and _is_image(path)]
    if len(files) < len(entries):
        ignored = len(entries) - len(files)
        _say(f"{folder}: ignored {ignored} files or folders that are not images in a class folder")
    results = _read_all([path for _, path in files], image_size)
    _report([str(result) for result in results if isinstance(result, ValueError)])
    read = [i for i, result in enumerate(results) if not isinstance(result, ValueError)]
    if not read:
        raise ValueError(f"{folder} must hold readable images, got none in {len(files)} files")
    labels = np.array([files[i][0] for i in read], np.int64)
    for label, path in enumerate(classes):
        if label not in labels:
            raise ValueError(f"the class folder {path} must hold a readable image, got none")
    return Images(np.stack([results[i] for i in read]), labels, tuple(c.name for c in classes))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _read_all(paths: list[Path], image_size: tuple[int, int]) -> list[np.ndarray | ValueError]:
    from rich.console import Console
    from rich.progress import track

    def read(path: Path) -> np.ndarray | ValueError:
        try:
            return read_image(path, image_size)
        except ValueError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's about odd metadata; the image was read
        return list(
            track(
                pool.map(read, paths),
                "reading images",
                total=len(paths),
                console=Console(stderr=True),
                disable=len(paths) <= 200,
            )
        )


def _report(problems: list[str]) -> None:
    for problem in problems[:SHOWN]:
        _say(f"skipped: {problem}")
    if len(problems) > SHOWN:
        _say(f"... and {len(problems) - SHOWN} more")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def read_image(path: str | Path, image_size: tuple[int, int]) -> np.ndarray:
    """Read one image file as RGB, upright, resized without cropping.

    Transparent parts become white, 16-bit greys keep their upper byte; of an animation it is the
    first picture.

    Args:
        path: The file.
        image_size: `(height, width)` in pixels.

    Returns:
        uint8, `(height, width, 3)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read as an image.
    """
    _check_size(image_size)
    height, width = image_size
    try:
        with Image.open(path) as file:
            # JPEG decodes at 1/2, 1/4 or 1/8 of the size in a fraction of the time.
            file.draft(None, (2 * max(image_size),) * 2)
            upright = ImageOps.exif_transpose(file)
            resized = _to_rgb(upright).resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image of a known format") from error
    except Exception as error:  # decoders raise anything on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a readable image: {reason}") from error
    return np.asarray(resized)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def hold_out(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Split off a part of every class, for choosing checkpoints or for testing.

    Equal images stay together, so that no copy of a held-out image is left in the rest.

    Args:
        images: What to split.
        fraction: Part of each class that is held out, between 0 and 1; at least one image.
        seed: Seed of the choice.

    Returns:
        The rest and the held-out part, both in the order of `images`.

    Raises:
        ValueError: If a class can't be split, as it has fewer than 2 different images.
    """
    _check_fraction(fraction)
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images.images]
    _, groups = np.unique(np.array(digests, "V32"), return_inverse=True)
    sides = np.full(groups.max(initial=0) + 1, -1)  # of a group: -1 open, 0 rest, 1 held out
    order = np.random.default_rng(seed).permutation(len(images))
    for label in np.unique(images.labels):
        mine = order[images.labels[order] == label]
        _split_class(groups[mine], sides, fraction)
        if len(set(sides[groups[mine]])) < 2:
            raise ValueError(
                f"class {images.class_names[label]!r} must have at least 2 different images "
                f"to be split, got {len(mine)} images"
            )
    held = sides[groups] == 1
    return images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))


def _split_class(groups: np.ndarray, sides: np.ndarray, fraction: float) -> None:
    """Set the open sides of the groups that a class has images in, given in random order."""
    target = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held = int(np.sum(sides[groups] == 1))
    still_open = list(dict.fromkeys(g for g in groups.tolist() if sides[g] == -1))
    sizes = {g: int(np.sum(groups == g)) for g in still_open}
    for group in still_open:
        sides[group] = held + sizes[group] <= target
        held += sizes[group] * sides[group]
    if held == 0 and len(still_open) > 1:
        sides[min(still_open, key=sizes.get)] = 1


def subset_per_class(images: Images, n: int, seed: int) -> Images:
    """Choose `n` images of every class; the choice for a larger `n` contains that for a smaller.

    Args:
        images: What to choose from.
        n: How many images of each class, at least 1.
        seed: Seed of the choice.

    Returns:
        The chosen images, in the order of `images`.

    Raises:
        ValueError: If a class has fewer than `n` images.
    """
    fewest = np.bincount(images.labels, minlength=len(images.class_names)).min()
    if not 1 <= n <= fewest:
        raise ValueError(f"n must be between 1 and {fewest}, the smallest class, got {n}")
    order = np.random.default_rng(seed).permutation(len(images))
    labels = images.labels[order]
    chosen = [order[labels == label][:n] for label in range(len(images.class_names))]
    return images.take(np.sort(np.concatenate(chosen)))


def resize(images: Images, image_size: tuple[int, int]) -> Images:
    """Resize grey or RGB images, bilinear and with antialiasing, without cropping.

    Args:
        images: Images with 1 or 3 channels.
        image_size: `(height, width)` in pixels.
    """
    _check_size(image_size)
    channels = images.images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    height, width = image_size
    resized = np.empty((len(images), height, width, channels), np.uint8)
    for target, image in zip(resized, images.images, strict=True):
        picture = Image.fromarray(image if channels == 3 else image[..., 0])
        array = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        target[...] = array.reshape(target.shape)
    return replace(images, images=resized)


def to_rgb(images: Images) -> Images:
    """Give grey images three equal channels; RGB images stay as they are."""
    channels = images.images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    return images if channels == 3 else replace(images, images=np.repeat(images.images, 3, axis=-1))


def _check_size(image_size: Sequence[int]) -> None:
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(f"image_size must be (height, width), at least 1 each, got {image_size}")


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out must be between 0 and 1, got {fraction}")
