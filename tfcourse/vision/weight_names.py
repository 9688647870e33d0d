"""How publishers of weights call the layers of each architecture.

Every function turns the name of a layer here into the name of the publisher's: `keras_` for
keras.applications, `torch_` for torchvision (or another file of torch's).
"""

import re
from collections.abc import Callable

from tfcourse.vision.vgg import CONVOLUTIONS


def torch_efficientnet_lite(layer: str) -> str:
    """Turn `block16_expand_bn` into `_blocks.15._bn0`."""
    block, part = re.fullmatch(r"(?:block(\d+)_)?(.*)", layer).groups()
    parts = {"expand_bn": "bn0", "depthwise_bn": "bn1", "project_bn": "bn2"}
    parts |= {"stem_conv": "conv_stem", "stem_bn": "bn0", "head_conv": "conv_head"}
    parts |= {"head_bn": "bn1", "logits": "fc"}
    prefix = f"_blocks.{int(block) - 1}." if block else ""
    return f"{prefix}_{parts.get(part, part)}"


def keras_resnet(layer: str) -> str:
    """Turn `stage2_block1_3_bn` into `conv2_block1_3_bn`, `stem_conv` into `conv1_conv`."""
    layer = layer.replace("stage", "conv").replace("stem", "conv1").replace("shortcut", "0")
    return "predictions" if layer == "logits" else layer


def torch_resnet(layer: str) -> str:
    """Turn `stage2_block1_3_bn` into `layer1.0.bn3`, `stem_conv` into `conv1`."""
    ends = {"stem_conv": "conv1", "stem_bn": "bn1", "logits": "fc"}
    if layer in ends:
        return ends[layer]
    stage, block, place, kind = re.fullmatch(r"stage(\d)_block(\d+)_(\w+)_(\w+)", layer).groups()
    part = f"downsample.{('conv', 'bn').index(kind)}" if place == "shortcut" else kind + place
    return f"layer{int(stage) - 1}.{int(block) - 1}.{part}"


def keras_densenet(layer: str) -> str:
    """Turn `stage2_layer1_1_bn` into `conv2_block1_0_bn`, `transition2_conv` into `pool2_conv`."""
    ends = {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn", "head_bn": "bn"}
    ends |= {"logits": "predictions"}
    if layer in ends:
        return ends[layer]
    if layer.startswith("transition"):
        return layer.replace("transition", "pool")
    stage, n, place, kind = re.fullmatch(r"stage(\d)_layer(\d+)_(\d)_(\w+)", layer).groups()
    # There a normalization has the number of the convolution before it.
    return f"conv{stage}_block{n}_{int(place) - (kind == 'bn')}_{kind}"


def torch_densenet(layer: str) -> str:
    """Turn `stage2_layer1_1_bn` into `features.denseblock1.denselayer1.norm1`."""
    ends = {"stem_conv": "features.conv0", "stem_bn": "features.norm0"}
    ends |= {"head_bn": "features.norm5", "logits": "classifier"}
    if layer in ends:
        return ends[layer]
    layer = layer.replace("bn", "norm")
    if layer.startswith("transition"):
        number, kind = re.fullmatch(r"transition(\d)_(\w+)", layer).groups()
        return f"features.transition{int(number) - 1}.{kind}"
    stage, n, place, kind = re.fullmatch(r"stage(\d)_layer(\d+)_(\d)_(\w+)", layer).groups()
    return f"features.denseblock{int(stage) - 1}.denselayer{n}.{kind}{place}"


def torch_googlenet(layer: str) -> str:
    """Turn `inception3a_5x5_bn` into `inception3a.branch3.1.bn`, `auxiliary1` into `aux1.fc2`."""
    if layer == "logits":
        return "fc"
    block, part, kind = re.fullmatch(r"([a-z]+\d[a-e]?)(?:_(.+?))??(?:_(conv|bn))?", layer).groups()
    if block.startswith("auxiliary"):
        part = {"reduce": "conv", "hidden": "fc1", None: "fc2"}[part]
        block = block.replace("auxiliary", "aux")
    elif part:
        branches = {"1x1": "1", "3x3_reduce": "2.0", "3x3": "2.1", "5x5_reduce": "3.0"}
        branches |= {"5x5": "3.1", "pool_projection": "4.1"}
        part = f"branch{branches[part]}"
    return ".".join(filter(None, (block, part, kind)))


def torch_alexnet(layer: str) -> str:
    """Turn `conv3` into `features.6`; for the variant "one-weird-trick"."""
    places = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
    dense = {"fc1": 1, "fc2": 4, "logits": 6}
    return f"features.{places[layer]}" if layer in places else f"classifier.{dense[layer]}"


def keras_vgg(layer: str) -> str:
    """Turn `logits` into `predictions`; the other names are equal."""
    return "predictions" if layer == "logits" else layer


def torch_vgg(depth: int, batch_norm: bool = False) -> Callable[[str], str]:
    """Return what turns `block2_conv1` into `features.5` for one depth: torch numbers them."""
    each = 3 if batch_norm else 2

    def name(layer: str) -> str:
        dense = {"fc1": "classifier.0", "fc2": "classifier.3", "logits": "classifier.6"}
        if layer in dense:
            return dense[layer]
        stage, kind, number = re.fullmatch(r"block(\d)_(conv|bn)(\d)", layer).groups()
        poolings = int(stage) - 1
        before = sum(CONVOLUTIONS[depth][:poolings]) + int(number) - 1
        return f"features.{before * each + poolings + (kind == 'bn')}"

    return name
