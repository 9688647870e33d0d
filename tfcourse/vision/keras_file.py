"""Keras' legacy HDF5 files of weights (`.h5`), read without Keras and without h5py."""

import itertools
from pathlib import Path

import numpy as np

from tfcourse.vision.hdf5_file import HDF5File


def read_keras(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Read the weights of each layer of a `.h5` file.

    Args:
        path: A file of keras.applications, or one that `save_weights` or `save` of Keras 2 wrote;
            of a whole model only the weights are read.

    Returns:
        For each layer that has weights its arrays, read-only, both in the file's order.

    Raises:
        ValueError: If the file is truncated, is of another format, or holds anything but plain
            arrays of its own.
        OSError: If the file can't be opened.
    """
    data = Path(path).read_bytes()
    try:
        return read_layers(HDF5File(data))
    except Exception as error:  # whatever damaged bytes lead to
        # What the file says of itself may be long, or meant for the terminal.
        reason = (str(error) or type(error).__name__)[:200].encode("unicode_escape").decode()
        raise ValueError(f"cannot read {path}: {reason}") from error


def read_layers(file: HDF5File) -> dict[str, list[np.ndarray]]:
    """Read every layer that the file names; together they can't be larger than it is."""
    top = file.links(file.root).get("model_weights", file.root)
    found, total = {}, 0
    for layer in all_names(file, top, "layer_names"):
        if layer in found or not layer.isprintable():
            raise ValueError(f"it must name each layer once, got {layer!r}")
        group = follow(file, top, layer)
        names = all_names(file, group, "weight_names")
        found[layer] = [file.array(follow(file, group, name)) for name in names]
        total += sum(array.nbytes for array in found[layer])
        if total > len(file.data):
            raise ValueError("its arrays claim more than the size of the file")
    if not found and "layers" in file.links(top):
        raise ValueError("it is of Keras 3's layout (.weights.h5), not of the legacy one (.h5)")
    if not found:
        raise ValueError("it names no layers: it is not of Keras' legacy format")
    return {layer: arrays for layer, arrays in found.items() if arrays}


def all_names(file: HDF5File, group: int, attribute: str) -> list[str]:
    """Return the names in an attribute, which Keras cuts into numbered ones where it is long."""
    whole = file.names(group, attribute)
    parts = (file.names(group, f"{attribute}{number}") for number in itertools.count())
    present = itertools.takewhile(lambda names: names is not None, parts)
    return list(itertools.chain.from_iterable(present)) if whole is None else whole


def follow(file: HDF5File, group: int, name: str) -> int:
    """Return the object that a name with slashes stands for, by links within the file only."""
    for part in name.split("/"):
        members = file.links(group)
        if part not in members:
            raise ValueError(f"{name!r} must be in the file itself")
        group = members[part]
    return group
