"""What a trained classifier looks at: its filters, its maps, and the places that decide.

Grad-CAM (Selvaraju et al., 2017), https://arxiv.org/abs/1610.02391.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcourse.vision.pretrained import preprocess


def grad_cam(
    model: keras.Model, images: np.ndarray, layer: str, classes: Sequence[int] | None = None
) -> np.ndarray:
    """Map how much each place of a feature map speaks for a class.

    `heat = relu(sum_k weight_k A_k)`, where `A_k` is channel k of the layer's map and `weight_k`
    the mean over all places of the gradient of the class's logit. Any network with a map in it
    will do; with nothing but a global average and a dense layer after the map, the weights are
    the dense layer's, divided by the number of places: that is CAM (Zhou et al., 2016).

    Args:
        model: A functional classifier of images that ends in logits.
        images: What the model takes, `(batch, height, width, channels)`.
        layer: Name of a layer whose output is a map, such as "stage5".
        classes: For each image the class asked for; `None` for the likeliest.

    Returns:
        `(batch, height, width)` of float32 from 0 up, with the height and width of the map.

    Raises:
        ValueError: If the model has no such map before its logits, it ends in a softmax, or
            `classes` are not one class for each image.
    """
    maps, logits = _map(model, layer), _logits(model)
    split = keras.Model(model.input, [maps, logits])
    images = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(images)  # records every step on the way, also those of frozen layers
        found, scores = split(images, training=False)
        chosen = tf.argmax(scores, axis=1) if classes is None else _checked(classes, scores.shape)
        score = tf.reduce_sum(tf.gather(scores, chosen, axis=1, batch_dims=1))
    gradient = tape.gradient(score, found)
    if gradient is None:
        raise ValueError(f"the logits of {model.name} do not depend on layer {layer!r}")
    weights = tf.reduce_mean(tf.cast(gradient, "float32"), axis=(1, 2), keepdims=True)
    heat = tf.reduce_sum(weights * tf.cast(found, "float32"), axis=-1)
    return tf.nn.relu(heat).numpy()


def feature_maps(
    model: keras.Model, images: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Compute what layers make of images.

    Args:
        model: A functional model.
        images: What it takes, `(batch, height, width, channels)`.
        names: Names of layers whose output is a map; `None` for the stages.

    Returns:
        For each layer a map `(batch, height, width, filters)`.

    Raises:
        ValueError: If the model has no such map, or no layer is named and none is a stage.
    """
    names = stages(model) if names is None else list(names)
    if not names:
        raise ValueError(f"names must be of layers with maps ({_known(model)}), got none")
    outputs = {name: _map(model, name) for name in names}
    found = keras.Model(model.input, outputs)(tf.convert_to_tensor(images), training=False)
    return {name: np.asarray(tf.cast(found[name], "float32")) for name in names}


def first_filters(model: keras.Model) -> np.ndarray:
    """Return the kernels of the first convolution, `(height, width, channels, filters)`.

    Raises:
        ValueError: If the model has no convolution.
    """
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            return layer.kernel.numpy()
    raise ValueError(f"the model must have a convolution, got {model.name}")


def colors(like: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Return what a model's preprocessing makes of colors: `pixel / 255 @ matrix + black`.

    Args:
        like: A model that there are pretrained weights for.

    Returns:
        The matrix `(3, 3)`, from red, green and blue to what the model takes, and black `(3,)`.
    """
    patches = np.zeros((4, 8, 8, 3), "float32")
    for channel in range(3):
        patches[channel + 1, ..., channel] = 255
    black, *pure = preprocess(patches, like=like)[:, 0, 0]
    return np.stack(pure) - black, black


def stages(model: keras.Model) -> list[str]:
    """Return the names `stage1`, `stage2`, ... that a model has."""
    names = {layer.name for layer in model.layers}
    return [name for name in (f"stage{n}" for n in range(1, 100)) if name in names]


def _map(model: keras.Model, name: str) -> keras.KerasTensor:
    found = {layer.name: layer.output for layer in model.layers}.get(name)
    if found is None or len(found.shape) != 4:
        raise ValueError(f"layer must be one whose output is a map ({_known(model)}), got {name!r}")
    return found


def _known(model: keras.Model) -> str:
    return ", ".join(stages(model)) or "none is called stage1, stage2, ..."


def _logits(model: keras.Model) -> keras.KerasTensor:
    names = {layer.name for layer in model.layers}
    layer = model.get_layer("logits") if "logits" in names else model.layers[-1]
    softmax = getattr(layer, "activation", None) is keras.activations.softmax
    if softmax or isinstance(layer, layers.Softmax) or len(layer.output.shape) != 2:
        raise ValueError(f"{model.name} must end in logits of classes, got layer {layer.name!r}")
    return layer.output


def _checked(classes: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    chosen = np.asarray(classes)
    if chosen.shape != (shape[0],) or not ((chosen >= 0) & (chosen < shape[1])).all():
        raise ValueError(
            f"classes must be one of 0 to {shape[1] - 1} for each of {shape[0]} images, "
            f"got {classes}"
        )
    return chosen
