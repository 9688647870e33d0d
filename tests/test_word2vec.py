"""word2vec: its gradient, its pairs, and what it finds in texts whose structure is known."""

import numpy as np
import pytest
import tensorflow as tf

from tfcourse.sequence import windows, word2vec
from tfcourse.sequence.word2vec import Word2Vec, fit_word2vec

RANDOM = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss_by_hand(kind, parts, pairs, negatives):
    """The sums of the docstring, word by word, for one block."""
    x, y_true, y_noise = parts
    total = 0.0
    for word in range(len(pairs)):
        around = np.nonzero(pairs[word])[0]
        if not len(around):
            continue
        if kind == "cbow":
            examples = [(x[around].mean(axis=0), y_true[word])]
        else:
            examples = [(x[word], y_true[other]) for other in around]
        for vector, true in examples:
            total -= np.log(sigmoid(vector @ true))
            total -= negatives * np.mean(np.log(sigmoid(-(y_noise @ vector))))
    return total


@pytest.mark.parametrize("kind", ["skip_gram", "cbow"])
def test_loss_and_gradient_as_sums_by_hand_and_finite_differences(kind):
    words, around, dim = 4, 6, 3
    pairs = (RANDOM.random((words, around)) < 0.5).astype(float)
    pairs[2] = 0
    sizes = (around, words) if kind == "cbow" else (words, around)
    parts = [RANDOM.normal(size=(size, dim)) for size in (*sizes, 5)]
    tensors = [tf.constant(part[None]) for part in parts]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = word2vec.LOSSES[kind](*tensors, tf.constant(pairs[None]), 7)
    assert float(loss) == pytest.approx(loss_by_hand(kind, parts, pairs, 7), rel=1e-12)
    for part, gradient in zip(parts, tape.gradient(loss, tensors), strict=True):
        for place in np.ndindex(part.shape):
            losses = []
            for step in (1e-5, -1e-5):
                part[place] += step
                losses.append(loss_by_hand(kind, parts, pairs, 7))
                part[place] -= step
            slope = (losses[0] - losses[1]) / 2e-5
            assert gradient[0].numpy()[place] == pytest.approx(slope, abs=1e-7)


def test_every_pair_within_reach_comes_once_and_none_across_sentences():
    lengths = [1, 50, 3, 90]
    sentence = np.repeat(np.arange(4, dtype=np.int32), lengths)
    words = np.arange(len(sentence), dtype=np.int32)  # so that a word says where it was
    found = []
    for ids, number, reach in windows.batches(RANDOM, words, sentence, 4, False):
        assert (reach <= 4).all()
        pairs = windows.pairs_within_reach(
            tf.constant(number), tf.constant(np.minimum(reach, 1) * 4), 4
        )
        block, one, other = np.nonzero(pairs.numpy())
        found += zip(ids[:, 4:-4][block, one].tolist(), ids[block, other].tolist(), strict=True)
    expected = [
        (i, j)
        for i in words
        for j in words
        if i != j and abs(int(i) - int(j)) <= 4 and sentence[i] == sentence[j]
    ]
    assert sorted(found) == expected


def test_reach_is_uniform_and_a_set_is_drawn_anew():
    words = np.arange(3_200, dtype=np.int32)
    sentence = words // 100
    batches = list(windows.batches(RANDOM, words, sentence, 5, True))
    reach = np.concatenate([part.ravel() for _, _, part in batches])
    np.testing.assert_allclose(np.bincount(reach)[1:] / len(reach), 0.2, atol=0.03)
    order = np.concatenate([ids[:, 5:-5].ravel() for ids, _, _ in batches])
    assert sorted(order) == words.tolist()
    own = {int(i): ids for ids, _, _ in batches for i in ids[:, 5:-5].ravel()}
    assert len(own) == 3_200
    for ids, number, _ in batches:
        assert (ids[number >= 0] // 100 == number[number >= 0]).all()  # sets stay whole
    assert (np.diff(order) == 1).mean() < 0.1


def test_a_step_follows_adagrad_on_the_rows_of_the_batch_alone():
    trainer = word2vec._Trainer("skip_gram", RANDOM.normal(size=(9, 4)).astype("float32"), 1, 2)
    trainer.contexts.assign(RANDOM.normal(size=(9, 4)))
    before = trainer.vectors.numpy(), trainer.contexts.numpy()
    ids = np.zeros((1, windows.BLOCK + 2), np.int32)
    ids[0, :4] = [0, 3, 5, 3]
    sentence = np.full(ids.shape, -1, np.int32)
    sentence[0, 1:4] = 0
    reach = np.zeros((1, windows.BLOCK), np.int32)
    reach[0, :3] = 1
    noise = np.full((1, word2vec.NOISE), 7, np.int32)
    loss, pairs = trainer.step(ids, sentence, reach, noise, 0.1)
    (x, y), slopes = before, np.zeros((9, 4))
    total = 0.0
    for word, other in [(3, 5), (5, 3), (5, 3), (3, 5)]:
        true, false = sigmoid(x[word] @ y[other]), sigmoid(x[word] @ y[7])
        total -= np.log(true) + 2 * np.log(1 - false)
        slopes[word] += (true - 1) * y[other] + 2 * false * y[7]
    assert float(pairs) == 4 and float(loss) == pytest.approx(total, rel=1e-5)
    steps = 0.1 * slopes / np.sqrt(np.mean(slopes**2, axis=1, keepdims=True) + 1e-12)
    np.testing.assert_allclose(trainer.vectors.numpy(), x - steps, rtol=1e-4, atol=1e-6)
    moved = np.nonzero((trainer.contexts.numpy() != y).any(axis=1))[0]
    assert moved.tolist() == [3, 5, 7]


def topics(sentences=1_500, words=60, count=6):
    """Sentences of ten words, eight of which are of one topic: the words of equal id // 10."""
    topic = RANDOM.integers(0, count, (sentences, 1)) * (words // count)
    text = topic + RANDOM.integers(0, words // count, (sentences, 10))
    other = RANDOM.random(text.shape) < 0.2
    return np.where(other, RANDOM.integers(0, words, text.shape), text)


@pytest.mark.parametrize("kind", ["skip_gram", pytest.param("cbow", marks=pytest.mark.slow)])
def test_neighbours_are_of_the_same_topic(kind):
    text = topics()
    model = fit_word2vec(text, 61, kind=kind, embedding_dim=16, epochs=4, subsample=None)
    assert all(i // 10 == j // 10 for i in range(60) for j in model.neighbours(i, 5)[1])
    assert model.losses[0] > model.losses[-1]
    assert not model.vectors[60].any()  # a word that never came
    again = fit_word2vec(text, 61, kind=kind, embedding_dim=16, epochs=4, subsample=None)
    np.testing.assert_allclose(model.vectors, again.vectors, atol=1e-3)


def test_analogy_of_a_grid():
    """Word 5 i + j comes with words of its row i and of its column j: a - b is one of columns."""
    rows, columns = 8, 5
    size = rows * columns
    text = []
    for _ in range(4_000):
        i, j = RANDOM.integers(0, rows), RANDOM.integers(0, columns)
        of_row, of_column = size + i, size + rows + j
        text.append([of_row, columns * i + j, of_column])
    vocabulary = size + rows + columns
    model = fit_word2vec(text, vocabulary, embedding_dim=24, window=1, epochs=10, subsample=None)
    right = 0
    for _ in range(200):
        i, other = RANDOM.choice(rows, 2, replace=False)
        j, of = RANDOM.choice(columns, 2, replace=False)
        ids = [columns * a + b for a, b in ((i, j), (i, of), (other, j), (other, of))]
        right += int(model.analogy(*ids[:3])[1][0] == ids[3])
    assert right >= 150  # 1 in 50 at random


def test_neighbours_and_analogy_by_hand():
    vectors = np.array([[1.0, 0], [2, 0.1], [0, 1], [-1, 0], [0, 0]])
    model = Word2Vec(vectors, vectors, [])
    cosines, ids = model.neighbours(0, 3)
    assert ids.tolist() == [1, 2, 3]  # the last never came
    assert cosines[0] == pytest.approx(2 / np.hypot(2, 0.1))
    man, woman, king, queen = [1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]
    model = Word2Vec(np.array([man, woman, king, [-1.0, 0, 0], queen]), None, [])
    assert model.analogy(0, 1, 2)[1].tolist() == [4]


def test_subsampling_leaves_out_what_the_formula_says():
    counts = np.array([90_000, 9_000, 1_000])
    words = np.repeat(np.arange(3), counts)
    seen = []
    original = windows.batches

    def spy(rng, words, *rest):
        seen.append(np.bincount(words, minlength=3))
        return original(rng, words[:64], rest[0][:64], *rest[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word2vec, "batches", spy)
        fit_word2vec([words], 3, embedding_dim=2, epochs=1, subsample=0.01)
    kept = seen[0] / counts
    expected = np.minimum(1, np.sqrt(0.01 / (counts / counts.sum())))
    np.testing.assert_allclose(kept, expected, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "glove"}, r"kind must be one of \['skip_gram', 'cbow'\], got 'glove'"),
        ({"window": 0}, "window must be 1 or more, got 0"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        (
            {"sentences": [[1, 2], [3, 9]]},
            r"from 0 to vocabulary_size - 1 = 4, got 9 in sentence 1",
        ),
        ({"sentences": [[-1, 2]]}, "ids must be .* got -1 in sentence 0"),
        ({"sentences": [[1], [2]]}, "sentences must have one of two words or more, got none"),
        ({"sentences": [["a", "b"]]}, "sentences must be of whole numbers, got <U1"),
        ({"subsample": 0}, "subsample must be above 0, or None, got 0"),
    ],
)
def test_bad_input_is_one_line(changes, message):
    arguments = {"sentences": [[1, 2], [3, 4]], "vocabulary_size": 5} | changes
    with pytest.raises(ValueError, match=message) as caught:
        fit_word2vec(**arguments)
    assert "\n" not in str(caught.value)


def test_words_that_are_not_there():
    model = Word2Vec(np.eye(3), np.eye(3), [])
    with pytest.raises(ValueError, match="a word must be from 0 to 2, got 3"):
        model.neighbours(3)
    with pytest.raises(ValueError, match="k must be from 1 to the 2 others that were learned, got"):
        model.neighbours(0, 3)
    model = Word2Vec(np.diag([1.0, 1, 0]), np.eye(3), [])
    with pytest.raises(ValueError, match="a word must have a vector, got 2"):
        model.neighbours(2, 1)
