"""Image -> class: one file per architecture, and the weights that others have trained."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.vision.efficientnet_lite import build_efficientnet_lite  # noqa: E402
from tfcourse.vision.lenet import build_lenet  # noqa: E402
from tfcourse.vision.pretrained import (  # noqa: E402
    decode,
    load_pretrained,
    preprocess,
)
from tfcourse.vision.torch_file import read_torch  # noqa: E402

__all__ = [
    "build_efficientnet_lite",
    "build_lenet",
    "decode",
    "load_pretrained",
    "preprocess",
    "read_torch",
]
