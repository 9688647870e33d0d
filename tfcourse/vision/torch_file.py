"""Torch's `.pth` files, read without torch.

Such a file is a pickle, and a pickle is a program: nothing in it is understood here but the
description of tensors, and nothing is run.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
# What a pickle may use more than once: texts (those of Python 2 too) and names of functions.
SHARED = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "GLOBAL", "STACK_GLOBAL"}
SHARED |= {"STRING", "BINSTRING", "SHORT_BINSTRING"}
TUPLES = 50_000  # about ten thousand tensors; Python crashes over some hundred thousand nested


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
        # What the file says of itself may be long, or meant for the terminal.
        reason = (str(error) or type(error).__name__)[:200].encode("unicode_escape").decode()
        raise ValueError(f"cannot read {path}: {reason}") from error


def read_pickles(data: bytes) -> dict[str, np.ndarray]:
    """Read the old format: five pickles, then each storage with its length before it."""
    if not data.startswith(MAGIC):
        raise ValueError("it is not a torch file")
    file = io.BytesIO(data)
    file.seek(len(MAGIC))
    version, system = unpickle(file).load(), unpickle(file).load()
    if version != 1001 or not system["little_endian"]:
        raise ValueError("it must be of version 1001 and little-endian")
    pickled = unpickle(file)
    tensors = pickled.load()
    chunks = {}
    for key in unpickle(file).load():
        if type(key) is not str:
            raise ValueError(f"it must name storages, got {shown(key)}")
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
            raise ValueError("it must be little-endian")
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
        if type(name) is not str or not name.isprintable() or type(tensor) is not Tensor:
            raise ValueError(f"it must hold named tensors only, got {shown(name)}")
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
    start, memo, before, tuples = file.tell(), {}, "", 0
    for opcode, argument, _ in pickletools.genops(file):
        kind = opcode.name
        # The pickle machine makes room for the largest number of a memo before it is used.
        if kind.endswith("PUT") and argument > file.tell():
            raise ValueError(f"it numbers a memo {argument}, more than it has bytes")
        if kind == "MEMOIZE" or kind.endswith("PUT"):
            memo[len(memo) if argument is None else argument] = before
        # Tuples that hold others twice cost twice as much to look at with each level.
        if kind == "DUP" or (kind.endswith("GET") and memo.get(argument) not in SHARED):
            raise ValueError("it uses an object twice that is no name")
        before, tuples = kind, tuples + kind.startswith("TUPLE")
        if tuples > TUPLES:
            raise ValueError(f"it must hold at most {TUPLES} tuples")
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
        # The second of these is what torch wrote before version 0.4.
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return lambda storage, offset, size, stride, *_: Tensor(storage, offset, size, stride)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.cuda") and name in DTYPES:
            return name
        raise ValueError(f"it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: tuple) -> Storage:
        """Note a storage: `("storage", type, key, device, count)`, and `None` in old files."""
        kind, dtype, key, _, count, *view = pid
        if any(type(part) is not str for part in (kind, dtype, key)) or type(count) is not int:
            raise ValueError("it refers to what is no plain storage")
        if kind != "storage" or dtype not in DTYPES or view not in ([], [None]):
            raise ValueError(f"it refers to {shown(dtype)}, which is no plain storage")
        storage = Storage(key, np.dtype(DTYPES[dtype]), count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"it describes storage {shown(key)} twice")
        return storage


def shown(value: object) -> str:
    """Return what an error may say of anything unpickled: a text's beginning, else its type."""
    return repr(value[:60]) if type(value) is str else type(value).__name__
