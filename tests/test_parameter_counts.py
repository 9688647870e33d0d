"""Published numbers of parameters, to the last digit.

`trainable` is what papers and torch count; Keras' total adds BatchNorm's moving statistics.
"""

import pytest

from tfcourse.vision import build_efficientnet_lite, build_lenet

COUNTS = [
    # EfficientNet-Lite: sums over the parameters and over the buffers (without the step counters)
    # of PyPI efficientnet-lite-pytorch 0.1.0 under torch 2.13.0, an independent implementation.
    (build_efficientnet_lite, (0,), 4_652_008, 4_694_024),
    (build_efficientnet_lite, (1,), 5_416_680, 5_470_344),
    (build_efficientnet_lite, (2,), 6_092_072, 6_150_168),
    (build_efficientnet_lite, (3,), 8_197_096, 8_273_768),
    (build_efficientnet_lite, (4,), 13_006_568, 13_118_936),
    # LeNet-5 with a full C3, by hand: 156 + 2,416 + 48,120 + 10,164 + 850. The paper has 60,000.
    (build_lenet, (), 61_706, 61_706),
]


@pytest.mark.parametrize(("builder", "arguments", "trainable", "total"), COUNTS)
def test_parameter_count(builder, arguments, trainable, total):
    model = builder(*arguments)
    assert sum(weight.shape.num_elements() for weight in model.trainable_variables) == trainable
    assert model.count_params() == total


def test_size_of_the_image_changes_no_count():
    assert build_efficientnet_lite(0, (None, None, 3)).count_params() == 4_694_024
