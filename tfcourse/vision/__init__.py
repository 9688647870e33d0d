"""Image -> class: one file per architecture, and the weights that others have trained."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.vision.alexnet import build_alexnet  # noqa: E402
from tfcourse.vision.augmentation import (  # noqa: E402
    alexnet_augmentation,
    augment,
    principal_colors,
    ten_windows,
)
from tfcourse.vision.augmentation_layers import PrincipalColors, RandomWindow  # noqa: E402
from tfcourse.vision.densenet import build_cifar_densenet, build_densenet  # noqa: E402
from tfcourse.vision.efficientnet_lite import build_efficientnet_lite  # noqa: E402
from tfcourse.vision.encoder_decoder import build_encoder_decoder  # noqa: E402
from tfcourse.vision.fully_convolutional import to_fully_convolutional  # noqa: E402
from tfcourse.vision.googlenet import build_googlenet  # noqa: E402
from tfcourse.vision.inception_v3 import build_inception_v3  # noqa: E402
from tfcourse.vision.inspection import feature_maps, grad_cam  # noqa: E402
from tfcourse.vision.lenet import build_lenet  # noqa: E402
from tfcourse.vision.pretrained import (  # noqa: E402
    decode,
    load_pretrained,
    preprocess,
)
from tfcourse.vision.resnet import build_cifar_resnet, build_resnet  # noqa: E402
from tfcourse.vision.torch_file import read_torch  # noqa: E402
from tfcourse.vision.vgg import build_vgg  # noqa: E402

__all__ = [
    "PrincipalColors",
    "RandomWindow",
    "alexnet_augmentation",
    "augment",
    "build_alexnet",
    "build_cifar_densenet",
    "build_cifar_resnet",
    "build_densenet",
    "build_efficientnet_lite",
    "build_encoder_decoder",
    "build_googlenet",
    "build_inception_v3",
    "build_lenet",
    "build_resnet",
    "build_vgg",
    "decode",
    "feature_maps",
    "grad_cam",
    "load_pretrained",
    "preprocess",
    "principal_colors",
    "read_torch",
    "ten_windows",
    "to_fully_convolutional",
]
