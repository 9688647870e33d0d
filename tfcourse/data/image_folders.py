"""The user's own pictures: one folder per class, whatever the files are."""

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tfcourse.data.images import Images, check_fraction, check_size, hold_out

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SHOWN = 10  # how many unreadable files are named


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
    check_size(image_size)
    parts = [folder / "train", folder / "test"]
    if not all(part.is_dir() and _folders_in(part) for part in parts):
        check_fraction(test_fraction)
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
    check_size(image_size)
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
