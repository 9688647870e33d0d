"""Pretrained models by name: what goes in, what comes out, who may use them.

Rows with a `prepare` function come through the package registry and need no other network. The
others are addresses at tfhub.dev, described by their publishers' pages; a machine that can reach
them is needed to try them.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfcourse.data import sources


@dataclass(frozen=True)
class Entry:
    """One pretrained model.

    Attributes:
        handle: Its name here, or its address.
        task: What it is for.
        inputs: What one call takes: shape and dtype.
        input_size: Height and width of an image, or `None` where it is no image model; `fixed`
            says whether other sizes are refused.
        input_range: The range of a pixel or a sample.
        output_size: Length of the vector that comes out.
        licence: The licence of the weights.
        imports: Module to import first, for the operations that it brings.
        parts: Useful regular expressions for `trainable`.
        prepare: Writes the SavedModel into a folder, without a network where its package is there.
        digest: Identifies what `prepare` writes on any machine.
    """

    handle: str
    task: str
    inputs: str
    output_size: int
    licence: str
    input_size: tuple[int, int] | None = None
    input_range: tuple[float, float] | None = None
    fixed: bool = False
    imports: str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    prepare: Callable[[Path], None] | None = None
    digest: str | None = None


def write_efficientnet_lite0(folder: str | Path) -> None:
    """Export EfficientNet-Lite0 without its head: images in [0, 1] to 1280 features."""
    import keras

    from hub_models.export import export
    from tfcourse.vision import build_efficientnet_lite, load_pretrained

    backbone = load_pretrained(build_efficientnet_lite(0, (None, None, 3), num_classes=None))
    inputs = keras.Input((None, None, 3), name="images")
    # The network was trained on (pixel - 127) / 128; TF Hub's images are in [0, 1].
    x = keras.layers.Rescaling(255 / 128, offset=-127 / 128, name="rescale")(inputs)
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(x))
    export(keras.Model(inputs, features, name="efficientnet_lite0"), folder)


def _in_another_process(function: str) -> Callable[[Path], None]:
    """Run a writer of this module in a fresh process.

    There it is under no distribution strategy and no precision policy, and takes nothing from the
    caller's random numbers, so that a first run and a second one are the same.
    """

    def prepare(folder: Path) -> None:
        print(f"making a SavedModel of {function.removeprefix('write_')} (once) ...", flush=True)
        code = f"import sys; from hub_models import catalogue; catalogue.{function}(sys.argv[1])"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",  # this process may hold the memory of the GPU already
        }
        environment.pop("TF_CONFIG", None)
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise OSError(f"could not make the SavedModel: {reason}")

    return prepare


def _copy_basic_pitch(folder: Path) -> None:
    source = sources.fetch("basic-pitch") / "basic_pitch/saved_models/icassp_2022/nmp"
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _digest(source: str, version: int) -> str:
    """Identify what is made of a source: its files, and the version of how it is made."""
    members = sorted(sources.SOURCES[source].members.items())
    return hashlib.sha256(f"{members} {version}".encode()).hexdigest()


_TFHUB = "https://tfhub.dev/"
_ROWS = (
    Entry(
        handle="efficientnet-lite0",
        task="image features",
        inputs="float32 (batch, height, width, 3), at least 32 x 32",
        input_size=(224, 224),
        input_range=(0.0, 1.0),
        output_size=1280,
        licence="Apache-2.0",
        parts=(("top", "block1[2-6]_|head_"), ("upper half", "block1|block0[89]|head_")),
        prepare=_in_another_process("write_efficientnet_lite0"),
        digest=_digest("efficientnet-lite0", version=1),
    ),
    Entry(
        handle="basic-pitch",
        task="notes in music",
        inputs="float32 (batch, 43844, 1): 2 s of sound at 22,050 Hz",
        input_range=(-1.0, 1.0),
        output_size=88,
        licence="Apache-2.0",
        prepare=_copy_basic_pitch,
        digest=_digest("basic-pitch", version=1),
    ),
    Entry(
        handle=_TFHUB + "google/imagenet/mobilenet_v2_100_224/feature_vector/5",
        task="image features",
        inputs="float32 (batch, 224, 224, 3)",
        input_size=(224, 224),
        input_range=(0.0, 1.0),
        fixed=True,
        output_size=1280,
        licence="Apache-2.0",
    ),
    Entry(
        handle=_TFHUB + "google/imagenet/resnet_v2_50/feature_vector/5",
        task="image features",
        inputs="float32 (batch, 224, 224, 3)",
        input_size=(224, 224),
        input_range=(0.0, 1.0),
        output_size=2048,
        licence="Apache-2.0",
    ),
    Entry(
        handle=_TFHUB + "google/imagenet/efficientnet_v2_imagenet1k_b0/feature_vector/2",
        task="image features",
        inputs="float32 (batch, 224, 224, 3)",
        input_size=(224, 224),
        input_range=(0.0, 1.0),
        output_size=1280,
        licence="Apache-2.0",
    ),
    Entry(
        handle=_TFHUB + "google/nnlm-en-dim50/2",
        task="sentence features",
        inputs="string (batch,)",
        output_size=50,
        licence="Apache-2.0",
    ),
    Entry(
        handle=_TFHUB + "google/universal-sentence-encoder-multilingual/3",
        task="sentence features",
        inputs="string (batch,)",
        output_size=512,
        licence="Apache-2.0",
        imports="tensorflow_text",
    ),
)
CATALOGUE = {row.handle: row for row in _ROWS if row.prepare}
ADDRESSES = {row.handle: row for row in _ROWS if not row.prepare}


def top_of(handle: str) -> bool | str:
    """Return what of a model to fine-tune: the catalogue's "top", or all of it."""
    entry = (CATALOGUE | ADDRESSES).get(handle)
    return dict(entry.parts).get("top", True) if entry else True
