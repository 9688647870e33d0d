"""Published numbers of parameters, to the last digit.

`trainable` is what papers and torch count; Keras' total adds BatchNorm's moving statistics.
"""

from functools import partial

import numpy as np
import pytest

from tfcourse.data.features import Category, Cross, History, Number
from tfcourse.recommendation import (
    build_deepfm,
    build_dien,
    build_din,
    build_embedding_mlp,
    build_factorization_machine,
    build_matrix_factorization,
    build_neural_cf,
    build_two_tower,
    build_wide_and_deep,
    course,
)
from tfcourse.sequence import (
    build_language_model,
    build_rnn,
    build_seq2seq,
    build_tdnn,
    build_textcnn,
    build_transformer,
)
from tfcourse.vision import (
    build_alexnet,
    build_cifar_densenet,
    build_cifar_resnet,
    build_densenet,
    build_efficientnet_lite,
    build_googlenet,
    build_inception_v3,
    build_lenet,
    build_resnet,
    build_vgg,
    to_fully_convolutional,
)

USER, ITEM, GENRE = Category("user", 944), Category("item", 1683), Category("genre", 20)
COLUMNS = (USER, ITEM, GENRE, History("seen", ITEM, 20), Number("hour"))
small_rnn = partial(build_rnn, embedding_dim=100)
started_textcnn = partial(build_textcnn, vectors=np.zeros((50, 300)))

COUNTS = [
    # EfficientNet-Lite: sums over the parameters and over the buffers (without the step counters)
    # of PyPI efficientnet-lite-pytorch 0.1.0 under torch 2.13.0, an independent implementation.
    (build_efficientnet_lite, (0,), 4_652_008, 4_694_024),
    (build_efficientnet_lite, (1,), 5_416_680, 5_470_344),
    (build_efficientnet_lite, (2,), 6_092_072, 6_150_168),
    (build_efficientnet_lite, (3,), 8_197_096, 8_273_768),
    (build_efficientnet_lite, (4,), 13_006_568, 13_118_936),
    # AlexNet 2012 by hand, layer by layer: 34,944 + 307,456 + 885,120 + 663,936 + 442,624 and
    # 37,752,832 + 16,781,312 + 4,097,000. The paper has 60 million. The other: torchvision 0.28.0.
    (build_alexnet, ("2012",), 60_965_224, 60_965_224),
    (build_alexnet, ("one-weird-trick",), 61_100_840, 61_100_840),
    # VGG: torchvision 0.28.0. The paper's Table 2 has 133, 133, 138 and 144 million.
    (build_vgg, (16,), 138_357_544, 138_357_544),
    (build_vgg, (16, (32, 32, 3), None), 14_714_688, 14_714_688),
    *(
        pytest.param(partial(build_vgg, batch_norm=norm), (depth,), *counts, marks=pytest.mark.slow)
        for depth, norm, *counts in (
            (11, False, 132_863_336, 132_863_336),
            (13, False, 133_047_848, 133_047_848),
            (19, False, 143_667_240, 143_667_240),
            (11, True, 132_868_840, 132_874_344),
            (13, True, 133_053_736, 133_059_624),
            (16, True, 138_365_992, 138_374_440),
            (19, True, 143_678_248, 143_689_256),
        )
    ),
    # As convolutions of 7x7x4096, 1x1x4096 and 1x1x1000 the head has the same weights.
    pytest.param(
        lambda depth: to_fully_convolutional(build_vgg(depth)),
        (16,),
        *(138_357_544, 138_357_544),
        marks=pytest.mark.slow,
    ),
    # GoogLeNet by hand from Table 1 of the paper, whose column sums to about 6.8 million; BatchNorm
    # replaces 7,280 biases by as many gammas and betas. With 3x3 for 5x5: torchvision 0.28.0.
    (build_googlenet, ("2014",), 6_998_552, 6_998_552),
    (partial(build_googlenet, auxiliary=True), ("2014",), 13_378_280, 13_378_280),
    (build_googlenet, ("batch-norm",), 7_005_832, 7_020_392),
    (build_googlenet, ("torchvision",), 6_624_904, 6_639_464),
    (partial(build_googlenet, auxiliary=True), ("torchvision",), 13_004_888, 13_019_960),
    # Inception v3: keras.applications.
    (build_inception_v3, (), 23_817_352, 23_851_784),
    # LeNet-5 with a full C3, by hand: 156 + 2,416 + 48,120 + 10,164 + 850. The paper has 60,000.
    (build_lenet, (), 61_706, 61_706),
    # ResNet: torchvision 0.28.0. Keras' networks have biases of convolutions besides: 26,560 in 50.
    (build_resnet, (18,), 11_689_512, 11_699_112),
    (build_resnet, (50,), 25_557_032, 25_610_152),
    (partial(build_resnet, variant="v1.5"), (50,), 25_557_032, 25_610_152),
    pytest.param(build_resnet, (34,), 21_797_672, 21_814_696, marks=pytest.mark.slow),
    pytest.param(build_resnet, (101,), 44_549_160, 44_654_504, marks=pytest.mark.slow),
    pytest.param(build_resnet, (152,), 60_192_808, 60_344_232, marks=pytest.mark.slow),
    # By hand: no biases of convolutions, 2 weights a channel of a normalization (2 more in the
    # total). Table 6 of the paper has 0.27, 0.46, 0.66, 0.85 and 1.7 million.
    (build_cifar_resnet, (20,), 269_722, 271_098),
    (build_cifar_resnet, (32,), 464_154, 466_426),
    (build_cifar_resnet, (44,), 658_586, 661_754),
    (build_cifar_resnet, (56,), 853_018, 857_082),
    pytest.param(build_cifar_resnet, (110,), 1_727_962, 1_736_058, marks=pytest.mark.slow),
    # DenseNet: torchvision 0.28.0, and keras.applications but for 161.
    (build_densenet, (121,), 7_978_856, 8_062_504),
    pytest.param(build_densenet, (161,), 28_681_000, 28_900_936, marks=pytest.mark.slow),
    pytest.param(build_densenet, (169,), 14_149_480, 14_307_880, marks=pytest.mark.slow),
    pytest.param(build_densenet, (201,), 20_013_928, 20_242_984, marks=pytest.mark.slow),
    # By hand, like those of ResNet. Table 2 has 1.0, 7.0, 27.2, 0.8, 15.3 and 25.6 million.
    (build_cifar_densenet, ("40-12",), 1_019_722, 1_037_818),
    (build_cifar_densenet, ("BC-100-12",), 769_162, 793_150),
    pytest.param(build_cifar_densenet, ("100-12",), 6_979_642, 7_096_858, marks=pytest.mark.slow),
    pytest.param(build_cifar_densenet, ("100-24",), 27_249_082, 27_480_346, marks=pytest.mark.slow),
    pytest.param(
        build_cifar_densenet, ("BC-250-24",), 15_324_406, 15_582_382, marks=pytest.mark.slow
    ),
    pytest.param(
        build_cifar_densenet, ("BC-190-40",), 25_624_430, 25_881_390, marks=pytest.mark.slow
    ),
    # The networks of the course, by hand from the sizes in its scripts. Its DeepFM would have
    # 347,461 with one table of users and films instead of two.
    (partial(build_embedding_mlp, variant="course"), (course.EMBEDDING_MLP,), 342_005, 342_005),
    (partial(build_wide_and_deep, variant="course"), (course.WIDE_AND_DEEP,), 352_005, 352_005),
    (partial(build_deepfm, variant="course"), (course.DEEPFM,), 657_481, 657_481),
    # Weights and vectors of 31,040 rows, two biases and 7 weights of numbers; to 64 from 10, four
    # times, and from 7: 2,816 + 512; layers 320 * 32 + 32 and 32 * 16 + 16; 1 + 64 + 16 + 1.
    (partial(build_deepfm, variant="course_v2"), (course.DEEPFM,), 355_659, 355_659),
    (build_neural_cf, ("course_mlp", course.USER, course.MOVIE), 310_351, 310_351),
    (build_neural_cf, ("course_towers", course.USER, course.MOVIE), 310_462, 310_462),
    # Recommenders by hand: tables of 944 + 1,683 + 20 = 2,647 rows of 16, which a history shares.
    # 42,352, layers 65 * 128 + 128 and 128 * 64 + 64, and 65.
    (build_embedding_mlp, (COLUMNS,), 59_121, 59_121),
    # 5,000 more, one for each row of the cross.
    (build_wide_and_deep, ((*COLUMNS, Cross("pair", (USER, GENRE), 5_000)),), 64_121, 64_121),
    # Rows of 17, one for the number, and a bias: 2,648 * 17 + 1.
    (build_factorization_machine, (COLUMNS,), 45_017, 45_017),
    # These 45,017, and the layers 8,448 + 8,256 + 64 without a second bias.
    (build_deepfm, (COLUMNS,), 61_785, 61_785),
    (partial(build_din, variant="course"), (course.DIN,), 327_842, 327_842),
    # 42,352, the unit 64 * 80 + 80, 80 * 40 + 40 and 41, layers 65 * 200 + 200, 200 * 80 + 80 and
    # 81, a slope for each of 280 units; their statistics besides, 560.
    (build_din, (COLUMNS,), 80_474, 81_034),
    # Tables of 31,040 rows of 10, a GRU of 3 * (10 + 10 + 2) * 10, attention 10 * 32 + 32 and 33,
    # a second GRU of three times 10 * 10 + 10 + 10 * 10 and 10 * 10 + 10, layers 57 * 128 + 256 and
    # 128 * 64 + 128 and 65, two networks of 20 * 32 + 32 and 33.
    (partial(build_dien, variant="course"), (course.DIN,), 329_752, 329_752),
    # 42,352, two GRUs of (16 + 16) * 48 + 48, 16 * 16 for the attention, the same layers.
    (build_dien, (COLUMNS,), 75_417, 75_977),
    # 2,627 rows of 16: 42,032. GMF: 17 more. MLP: 2,112 + 2,080 + 528 + 17. NeuMF: two tables,
    # the layers, and 33.
    (build_neural_cf, ("gmf", USER, ITEM), 42_049, 42_049),
    (build_neural_cf, ("mlp", USER, ITEM), 46_769, 46_769),
    (build_neural_cf, ("neumf", USER, ITEM), 88_817, 88_817),
    # Matrix factorisation: (944 + 1,683) x (32 + 1).
    (build_matrix_factorization, (USER, ITEM), 86_691, 86_691),
    # Two towers by hand. User: (944 + 1,683) * 32 in tables, 64 * 64 + 64, 64 * 32 + 32: 90,304.
    # Item: (1,683 + 20) * 32, and the same layers: 60,736. A history brings a table to its tower.
    (build_two_tower, ((USER, History("seen", ITEM, 20)), (ITEM, GENRE)), 151_040, 151_040),
    # Sequences by hand: a table of 50 * 100; the cell, with 100 inputs and 128 units: (100 + 128 +
    # 1) * 128 = 29,312, four times that, three times (100 + 128 + 2) * 128, three times 29,312;
    # two classes: 258.
    (small_rnn, ("rnn", 50, 2), 34_570, 34_570),
    (small_rnn, ("lstm", 50, 2), 122_506, 122_506),
    (small_rnn, ("gru", 50, 2), 93_578, 93_578),
    (small_rnn, ("gru-2014", 50, 2), 93_194, 93_194),
    # A second layer of 128 + 128 inputs, and all of it twice: 2 * (88,320 + 148,224).
    (partial(small_rnn, num_layers=2, bidirectional=True), ("gru", 50, None), 478_088, 478_088),
    # 50 * 128, 4 * (128 + 256 + 1) * 256, 257 * 50.
    (build_language_model, ("lstm", 50), 413_490, 413_490),
    # 300 for each of 50 words, (3 + 4 + 5) * 300 * 100 + 300 = 360,300 for the windows, 602.
    (build_textcnn, ("rand", 50, 2), 375_902, 375_902),
    (started_textcnn, ("static", 50, 2), 360_902, 375_902),
    (started_textcnn, ("non-static", 50, 2), 375_902, 375_902),
    (started_textcnn, ("multichannel", 50, 2), 375_902, 390_902),
    # (3 * 16 + 1) * 8, (5 * 8 + 1) * 3, and a threshold for each class.
    (build_tdnn, (), 392 + 123 + 3, 392 + 123 + 3),
    (partial(build_tdnn, vocabulary_size=50), (), 800 + 518, 800 + 518),
    # Vectors of 50 words and 60; three GRUs of (256 + 256 + 2) * 3 * 256 = 394,752; 513 * 256 =
    # 131,328 to begin, 257 * 60 = 15,420 at the end. With attention 512 * 256 for keys and 769 *
    # 256 to combine; Bahdanau's has 257 * 256 more for scores, and 512 * 768 for contexts read.
    (build_seq2seq, ("none", 50, 60), 28_160 + 1_331_004, 1_359_164),
    (build_seq2seq, ("luong", 50, 60), 1_359_164 + 131_072 + 196_864, 1_687_100),
    (build_seq2seq, ("bahdanau", 50, 60), 1_687_100 + 65_792 + 393_216, 2_146_108),
    # The paper's base: 37,000 * 512; six blocks of 4 * 512^2, 512 * 2048 * 2 + 2048 + 512 and two
    # norms of 1,024 to read; six of twice the heads and three norms to write. Table 3 has 65
    # million: as in all its rows of this width about 2 million more, as of 41,000 tokens.
    (build_transformer, (37_000,), 18_944_000 + 18_902_016 + 25_199_616, 63_045_632),
    # Two vocabularies: the 7,000 of the target are also the matrix of the logits.
    (
        partial(build_transformer, num_layers=1),
        (9_000, 7_000),
        16_000 * 512 + 3_150_336 + 4_199_936,
        16_000 * 512 + 3_150_336 + 4_199_936,
    ),
]


@pytest.mark.parametrize(("builder", "arguments", "trainable", "total"), COUNTS)
def test_parameter_count(builder, arguments, trainable, total):
    model = builder(*arguments)
    assert sum(weight.shape.num_elements() for weight in model.trainable_variables) == trainable
    assert model.count_params() == total


def test_size_of_the_image_changes_no_count():
    assert build_efficientnet_lite(0, (None, None, 3)).count_params() == 4_694_024
