"""Autoencoder (Hinton & Salakhutdinov, 2006), https://doi.org/10.1126/science.1127647.

Denoising: Vincent et al. (2008), https://doi.org/10.1145/1390156.1390294. Transposed convolutions:
Zeiler et al. (2010), https://doi.org/10.1109/CVPR.2010.5539957.
"""

import math
from dataclasses import dataclass, replace

import keras
from keras import layers

from tfcourse.vision.blocks import check_choice, check_images


@dataclass(frozen=True)
class Variant:
    """What a variant has unless the caller says otherwise.

    Attributes:
        filters: Filters of each stage.
        code_units: Numbers in the code, 30 in the paper of 2006; `None` for a map.
        noise: Standard deviation of the noise in training.
    """

    filters: tuple[int, ...]
    code_units: int | None
    noise: float


VARIANTS = {
    "autoencoder": Variant((32, 64), 30, 0.0),
    # One stage keeps what a second loses: 0.8 dB on Fashion-MNIST, at the same cost.
    "denoising": Variant((48,), None, 0.25),
}


def build_encoder_decoder(
    variant: str = "autoencoder",
    input_shape: tuple[int, int, int] = (28, 28, 1),
    *,
    filters: tuple[int, ...] | None = None,
    code_units: int | None = None,
    noise: float | None = None,
) -> keras.Model:
    """Build a convolutional network that learns to give back the image it was given.

    What it learns without any label is the code in between: the autoencoder's is so short that it
    has to say what images have in common; the denoising variant's is wider than the image, and
    copying does not help it, as it sees noise that is not in its target.
    Differences from the papers: convolutions, ReLU, no training layer by layer, and Gaussian noise
    where Vincent et al. set pixels to 0.

    Args:
        variant: "autoencoder" or "denoising".
        input_shape: Shape of an image, `(height, width, channels)`, of any size from 2 pixels up,
            twice as many with each further stage. Pixels are from 0 to 1.
        filters: Filters of each stage, which halves height and width; the decoder mirrors them.
            `None` for the variant's own: (32, 64) or (48,).
        code_units: Numbers in the code. `None` for the variant's own: 30 in the autoencoder; the
            denoising variant has a map `(height / 2, width / 2, 48)`.
        noise: Standard deviation of the Gaussian noise that is added to the image, in training
            only; at most 1. `None` for the variant's own: 0 or 0.25.

    Returns:
        A model from images `(batch, *input_shape)` to logits of the same shape: the pixels are
        their sigmoid, the loss is a binary cross-entropy with `from_logits=True` between them and
        the clean images. The layers `stage1`, `stage2`, ... end the stages of the encoder; the
        layer `code` gives the code.

    Raises:
        ValueError: If there is no such variant, the images are too small or of unknown size, or
            another argument makes no sense.
    """
    check_choice("variant", variant, VARIANTS)
    given = {"filters": filters, "code_units": code_units, "noise": noise}
    given = {name: value for name, value in given.items() if value is not None}
    chosen = replace(VARIANTS[variant], **given)
    _check(input_shape, chosen)
    inputs = keras.Input(input_shape)
    x = layers.GaussianNoise(chosen.noise, name="noise")(inputs) if chosen.noise else inputs
    sizes = []
    for stage, width in enumerate(chosen.filters, 1):
        sizes.append(x.shape[1:3])
        x = layers.Conv2D(width, 3, 2, padding="same", name=f"encode{stage}_conv")(x)
        x = layers.ReLU(name=f"stage{stage}")(x)
    if chosen.code_units:
        x = narrow(x, chosen.code_units)
    else:
        x = layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu", name="code")(x)
    for stage in range(len(sizes), 0, -1):
        x = enlarge(x, chosen.filters[stage - 1], sizes[stage - 1], name=f"decode{stage}")
    x = layers.Conv2D(input_shape[-1], 3, padding="same", name="logits")(x)
    return keras.Model(inputs, x, name="encoder_decoder")


def narrow(x: keras.KerasTensor, code_units: int) -> keras.KerasTensor:
    """Squeeze a map through a vector of `code_units`, linear as in the paper, and unfold it."""
    shape = x.shape[1:]
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(code_units, name="code")(x)
    x = layers.Dense(math.prod(shape), activation="relu", name="expand")(x)
    return layers.Reshape(shape, name="unflatten")(x)


def enlarge(
    x: keras.KerasTensor, filters: int, size: tuple[int, int], *, name: str
) -> keras.KerasTensor:
    """Double height and width by a transposed convolution; cut what the encoder rounded up.

    The strides divide the kernel size, so that every pixel gets equally many terms: otherwise the
    image shows a checkerboard (Odena et al., 2016, https://doi.org/10.23915/distill.00003).
    """
    x = layers.Conv2DTranspose(filters, 4, 2, padding="same", name=f"{name}_conv")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    extra = [(0, have - want) for have, want in zip(x.shape[1:3], size, strict=True)]
    return layers.Cropping2D(extra, name=f"{name}_crop")(x) if x.shape[1:3] != size else x


def _check(input_shape: tuple[int, int, int], chosen: Variant) -> None:
    filters = chosen.filters
    if not filters or min(filters) < 1:
        raise ValueError(f"filters must be one number of at least 1 for each stage, got {filters}")
    where = f" for {len(filters)} stage{'s' * (len(filters) > 1)}"
    check_images(input_shape, 2 ** len(filters), any_size=False, where=where)
    if chosen.code_units is not None and chosen.code_units < 1:
        raise ValueError(f"code_units must be at least 1, got {chosen.code_units}")
    if not 0 <= chosen.noise <= 1:
        raise ValueError(f"noise must be between 0 and 1, got {chosen.noise}")
