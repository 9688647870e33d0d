"""Independent implementations of our models, and their weights in the publishers' file formats.

Keras' twins are keras.applications', written as `Model.save_weights` of Keras writes its legacy
files; torch's are torchvision's, written by `torch.save`. Weights are random, and so are the
statistics of batch normalization: a fresh one would hide what is exchanged.
"""

import contextlib
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

CLASSES = 10


def import_torchvision():
    """Import torchvision, or skip the test that needs it."""
    torch = pytest.importorskip("torch", reason="the twin is torchvision's; torch is missing")
    # A build for GPUs lacks its operators on a machine without; none of them is used here.
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", signature)
    return pytest.importorskip("torchvision", reason="the twin is torchvision's; it is missing")


@contextlib.contextmanager
def policy(name: str):
    """Build models under a policy of types, such as "float64"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def photos(count: int, size: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, size, size, 3)).astype(dtype)


def signs(shape: tuple[int, ...]) -> np.ndarray:
    """Weigh each logit differently: normalized outputs have a mean that no weight moves."""
    return np.sin(np.arange(1.0, 1.0 + np.prod(shape))).reshape(shape)


def random_value(rng: np.random.Generator, name: str, shape: tuple[int, ...], fan_in: int):
    """Draw a weight that keeps the size of signals; `name` is its last part in either world."""
    if len(shape) > 1:
        return rng.standard_normal(shape, "float32") * np.sqrt(2 / fan_in).astype("float32")
    positive = name in {"gamma", "moving_variance", "weight", "running_var"}
    low, high = (0.5, 1.5) if positive else (-0.3, 0.3)
    return rng.uniform(low, high, shape).astype("float32")


class KerasTwin:
    """One network of keras.applications."""

    suffix = ".h5"

    def __init__(self, name: str, size: int, **more):
        more = {"classes": CLASSES, "classifier_activation": None} | more
        build = getattr(keras.applications, name)
        self.model = build(weights=None, input_shape=(size, size, 3), **more)
        rng = np.random.default_rng(2)
        for weight in self.model.weights:
            shape = tuple(weight.shape)
            value = random_value(rng, weight.name, shape, int(np.prod(shape[:-1])))
            weight.assign(value)

    def write(self, path: Path) -> Path:
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, self.model)
        return path

    def outputs(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.model(images))

    def become_gradients(self, images: np.ndarray) -> None:
        """Put the gradient of each weight, in training mode, in its place."""
        weights = self.model.trainable_variables
        gradients = training_gradients(self.model, images)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign(gradient)


class TorchTwin:
    """One network of torchvision; its dense head is cut to the size of the images."""

    suffix = ".pth"

    def __init__(self, name: str, size: int, **more):
        models = import_torchvision().models
        import torch

        self.torch = torch
        build = getattr(models, name)
        if name == "googlenet":
            more = {"init_weights": False, "aux_logits": True} | more
        self.model = build(weights=None, num_classes=CLASSES, **more).eval()
        if hasattr(self.model, "classifier") and hasattr(self.model, "avgpool"):
            self.cut_head(size)
        rng = np.random.default_rng(2)
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if value.ndim:
                    shape, fan_in = tuple(value.shape), value[0].numel()
                    part = key.rpartition(".")[2]
                    value.copy_(torch.from_numpy(random_value(rng, part, shape, fan_in)))

    def cut_head(self, size: int) -> None:
        with self.torch.no_grad():
            features = self.model.features(self.torch.zeros(1, 3, size, size)).numel()
        self.model.avgpool = self.torch.nn.Identity()
        head = self.model.classifier
        place = next(i for i, part in enumerate(head) if hasattr(part, "out_features"))
        head[place] = self.torch.nn.Linear(features, head[place].out_features)

    def write(self, path: Path, *, old: bool = False) -> Path:
        state = self.model.state_dict()
        self.torch.save(state, path, _use_new_zipfile_serialization=not old)
        return path

    def logits(self, images: np.ndarray):
        output = self.model(self.torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        return getattr(output, "logits", output)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            return self.logits(images).numpy()

    def become_gradients(self, images: np.ndarray) -> None:
        """Put the gradient of each weight, in training mode, in its place."""
        for module in self.model.train().double().modules():
            if isinstance(module, self.torch.nn.Dropout):
                module.p = 0.0
        logits = self.logits(images)
        (logits * self.torch.from_numpy(signs(tuple(logits.shape)))).sum().backward()
        with self.torch.no_grad():
            for weight in self.model.parameters():
                weight.copy_(0 * weight if weight.grad is None else weight.grad)


PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


def torch_din(columns: list[list], **settings):
    """Build the DIN of the benchmarks, by PyTorch.

    Args:
        columns: Lists such as `["category", name, size]`, categories, histories and numbers.
        **settings: Sizes, as the benchmarks name them.

    Returns:
        The module torch, and the network.
    """
    torch = pytest.importorskip("torch", reason="the twin is PyTorch's; torch is missing")
    sys.path.insert(0, str(PEERS))
    try:
        with contextlib.redirect_stdout(sys.stdout):  # a peer sends its own elsewhere
            models = importlib.import_module("torch_models")
    finally:
        sys.path.remove(str(PEERS))
    clicks = SimpleNamespace(settings=settings)
    clicks.of = lambda kind: [rest for word, *rest in columns if word == kind]
    return torch, models.DIN(clicks)


def training_gradients(model: keras.Model, images: np.ndarray) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_sum(logits * signs(logits.shape))
    return tape.gradient(loss, model.trainable_variables)
