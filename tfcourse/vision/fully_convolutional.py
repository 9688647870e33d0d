"""Dense classifiers as convolutions (Long, Shelhamer & Darrell, 2015), section 3.1.

https://arxiv.org/abs/1411.4038; OverFeat (Sermanet et al., 2014), https://arxiv.org/abs/1312.6229,
looked at every place of a large image at once in the same way.
"""

import keras
from keras import layers

POOLINGS = {
    layers.GlobalAveragePooling2D: layers.AveragePooling2D,
    layers.GlobalMaxPooling2D: layers.MaxPooling2D,
}
STARTS = (layers.Flatten, *POOLINGS)
# What treats every value of a map alike, wherever it stands.
ELEMENTWISE = (layers.Dropout, layers.Activation, layers.ReLU, layers.Identity)


def to_fully_convolutional(model: keras.Model) -> keras.Model:
    """Make a classifier that gives a map of logits for images of any larger size.

    A dense layer on a flattened map is a convolution whose kernel is as large as the map: the
    first dense layer of VGG becomes one of 7x7, the others of 1x1. Global pooling becomes pooling
    at every pixel, over windows of the native map's size.

    On an image of the model's own size the one vector of logits equals the model's. On a larger
    one each position of the map equals the dense head applied to that window of the last feature
    map. It equals the whole model applied to that crop of the image only where no layer pads: the
    model sees zeros around a crop, here it sees what is really there.

    Args:
        model: A model from images of one known size to logits, that ends in a flattened or
            globally pooled map and dense layers. It is left as it is.

    Returns:
        A model of the same name, its layers of the same names and with copies of the same
        weights, from images `(batch, height, width, channels)`, of the native size or larger, to
        logits `(batch, rows, columns, num_classes)` at the stride of the last feature map.

    Raises:
        ValueError: If the model has no such head, or takes images of any size.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4 or None in model.input_shape[1:]:
        raise ValueError(f"{model.name} must take images of one size, got {model.input_shape}")
    windows = windows_of_head(model)

    def convert(layer: layers.Layer) -> layers.Layer:
        if layer.name not in windows:
            return type(layer).from_config(layer.get_config())
        return as_convolution(layer, windows[layer.name])

    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    inputs = keras.Input((None, None, model.input_shape[-1]), dtype=model.inputs[0].dtype)
    twin = keras.models.clone_model(plain, clone_function=convert, input_tensors=inputs)
    for layer in (layer for layer in plain.layers if layer.weights):
        copy = twin.get_layer(layer.name)
        pairs = zip(layer.get_weights(), copy.weights, strict=True)
        copy.set_weights([value.reshape(weight.shape) for value, weight in pairs])
    return twin


def windows_of_head(model: keras.Model) -> dict[str, tuple[int, int]]:
    """Give each layer of the head, by name, the size of the map that it sees in the model."""
    starts = [n for n, layer in enumerate(model.layers) if isinstance(layer, STARTS)]
    if not starts or len(model.outputs) != 1:
        raise ValueError(f"{model.name} must end in Flatten or global pooling, and dense layers")
    head, windows, dense = model.layers[starts[-1] :], {}, 0
    x, window = head[0].input, head[0].input.shape[1:-1]
    for layer in head:
        if not isinstance(layer, (*STARTS, *ELEMENTWISE, layers.Dense)) or layer.input is not x:
            raise ValueError(
                f"{model.name} must have dense layers in a row after {head[0].name}, "
                f"got {layer.name} ({type(layer).__name__})"
            )
        windows[layer.name], x = window, layer.output
        dense += isinstance(layer, layers.Dense)
        if isinstance(layer, (layers.Dense, *POOLINGS)):
            window = (1, 1)
    if x is not model.outputs[0] or len(head[0].input.shape) != 4 or not dense:
        raise ValueError(f"{model.name} must end in a map of features, and dense layers")
    return windows


def as_convolution(layer: layers.Layer, window: tuple[int, int]) -> layers.Layer:
    """Make what slides a layer of the head over a map; its weights are new."""
    config = layer.get_config()
    if isinstance(layer, layers.Dense):
        known = layers.Conv2D(1, 1).get_config()
        shared = {key: value for key, value in config.items() if key in known}
        return layers.Conv2D.from_config(shared | {"filters": layer.units, "kernel_size": window})
    if isinstance(layer, layers.Flatten):
        # Not `Identity`, which Keras cannot save once it was given a policy.
        return layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)
    if type(layer) in POOLINGS:
        pooling = POOLINGS[type(layer)]
        return pooling(window, strides=1, name=layer.name, dtype=layer.dtype_policy)
    return type(layer).from_config(config)
