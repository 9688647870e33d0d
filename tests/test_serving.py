"""A model and its pipeline as one SavedModel: the same scores from raw values, without our code."""

import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse.data.pipeline import (
    Bucketed,
    Combined,
    Hashed,
    Normalised,
    Pipeline,
    Sequence,
    Vocabulary,
)
from tfcourse.recommendation.blocks import mean_of_history
from tfcourse.recommendation.embedding import embed, make_inputs
from tfcourse.recommendation.serving import Served, export, hash_texts

RNG = np.random.default_rng(0)
ROWS = 60
TITLES = ["Alien", "Brazil", "Amélie", "千と千尋の神隠し", "M"]
TRAIN = {
    "user": RNG.integers(1, 9, ROWS),
    "item": RNG.choice(TITLES, ROWS),
    "age": RNG.integers(15, 70, ROWS).astype(float),
    "price": RNG.exponential(100, ROWS),
    "year": RNG.integers(1930, 2000, ROWS),
    "job": RNG.choice(["writer", "none"], ROWS),
    "seen": [list(RNG.choice(TITLES, n)) for n in RNG.integers(0, 6, ROWS)],
    "places": ["1 2 3"] * ROWS,
}
SPECS = [
    Vocabulary("user"),
    Vocabulary("item"),
    Normalised("age"),
    Normalised("price", logarithm=True),
    Bucketed("year", 4),
    Hashed("job", 40),
    Combined("both", ("user", "year"), 30),
    Sequence("seen", length=3),
    Sequence("places", "job", 4),
]
# Raw values as they come in: as in training, missing, never seen.
RAW = {
    "user": ["3", "7", "", "99", "7.5"],
    "item": ["Alien", "千と千尋の神隠し", "Nobody", "", "M"],
    "age": np.float32([20, np.nan, 1e6, -3, 44]),
    "price": np.float32([0, 12.5, np.nan, -7, 1e9]),
    "year": np.float32([1950, np.nan, 0, 3000, 1975]),
    "job": ["writer", "", "Zauberkünstler", "none", "a" * 300],
    "seen": [
        ["M", "Alien", "", "", ""],
        ["", "", "", "", ""],
        ["Nobody", "M", "", "Brazil", ""],
        ["Amélie", "M", "Alien", "Brazil", "M"],
        ["?", "?", "?", "?", "M"],
    ],
    "places": [["1"], [""], ["2"], ["2"], ["x"]],
}


def make_model(pipeline, name="logits", units=1):
    """A small model in which every column counts."""
    keras.utils.set_random_seed(0)
    features = pipeline.features
    inputs = make_inputs(features)
    vectors = embed(features, inputs, 4, "embedding")
    parts = [mean_of_history(vectors[n], inputs[n]) for n in ("seen", "places") if n in inputs]
    parts += [vector for vector in vectors.values() if len(vector.shape) == 2]
    parts += [inputs[n][:, None] for n in ("age", "price") if n in inputs]
    x = keras.layers.Dense(8, "relu", name="hidden")(keras.ops.concatenate(parts, axis=1))
    model = keras.Model(inputs, keras.layers.Dense(units, name=name)(x))
    table = model.get_layer("embedding").table
    table.assign(RNG.normal(size=table.shape))
    return model


def tensors(raw, of=None):
    return {n: tf.constant(v) for n, v in raw.items() if of is None or n in of}


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(SPECS).fit(TRAIN)


@pytest.fixture(scope="module")
def model(pipeline):
    return make_model(pipeline)


@pytest.fixture(scope="module")
def folder(model, pipeline, tmp_path_factory):
    return export(model, pipeline, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def serve(folder):
    return tf.saved_model.load(folder).signatures["serving_default"]


def test_scores_are_those_of_the_model(serve, model, pipeline):
    found = serve(**tensors(RAW))
    logits = model.predict(pipeline.transform(RAW), verbose=0)[:, 0]
    np.testing.assert_allclose(found["logit"], logits, atol=1e-6)


@pytest.mark.slow
def test_scores_are_those_of_the_model_without_our_code(folder, model, pipeline, tmp_path):
    code = """
import sys
for name in ("tfcourse", "keras"):
    sys.modules[name] = None  # an import of it fails
import numpy as np
import tensorflow as tf
raw = np.load(sys.argv[2])
loaded = tf.saved_model.load(sys.argv[1])
for name in ("serving_default", "serve"):
    found = loaded.signatures[name](**{name: tf.constant(raw[name]) for name in raw.files})
    np.savez(sys.argv[3] + name, **{name: tensor.numpy() for name, tensor in found.items()})
"""
    encoded = {n: np.char.encode(v, "utf-8") if n not in ("age", "price", "year") else v
               for n, v in RAW.items()}  # fmt: skip
    np.savez(tmp_path / "raw.npz", **encoded)
    command = [sys.executable, "-I", "-c", code, folder, tmp_path / "raw.npz", f"{tmp_path}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = model.predict(pipeline.transform(RAW), verbose=0)[:, 0]
    assert logits.std() > 0.1
    for name in ("serving_default", "serve"):
        found = np.load(tmp_path / f"{name}.npz")
        assert sorted(found.files) == ["logit", "probability"]
        np.testing.assert_allclose(found["logit"], logits, atol=1e-6)
        np.testing.assert_allclose(found["probability"], 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_graph_prepares_as_numpy_does(pipeline):
    """Every column by itself, through a model that hands its inputs on."""
    expected = pipeline.transform(RAW)
    for feature in pipeline.features:
        if feature.name == "both":
            continue
        shape, number = expected[feature.name].shape[1:], feature.name in ("age", "price")
        column = keras.Input(shape, name=feature.name, dtype="float32" if number else "int32")
        flat = column if shape else column[:, None]
        identity = keras.Model([column], keras.ops.concatenate([flat, flat], axis=1))
        identity = keras.Model({feature.name: column}, identity(column))
        found = Served(identity, pipeline).serve(tensors(RAW, [feature.name]))["vector"]
        wanted = expected[feature.name].reshape(len(found), -1)
        np.testing.assert_allclose(found[:, : wanted.shape[1]], wanted, rtol=1e-6)


def test_hashing_in_the_graph_is_crc32():
    texts = ["", "a", "b", "Amélie", "千と千尋", "x\0y", "z" * 200, *map(str, range(200))]
    hashing = tf.function(hash_texts)
    for size in (2, 1000, 2**31 - 1):
        expected = [1 + zlib.crc32(text.encode()) % (size - 1) if text else 0 for text in texts]
        assert hashing(tf.constant(texts), size).numpy().tolist() == expected
    assert hash_texts(tf.constant([["a", ""], ["", "b"]]), 9).shape == (2, 2)
    assert hash_texts(tf.constant([""]), 9).numpy().tolist() == [0]


def test_a_new_user_is_known_by_the_history(serve):
    """Nobody has trained on this user: what was seen a minute ago counts."""
    rows = {n: [v[0]] * 5 for n, v in RAW.items()} | {"item": TITLES, "user": ["new"] * 5}

    def ranking(history):
        raw = tensors(rows | {"seen": [history] * 5})
        return serve(**raw)["probability"].numpy()

    nothing, one, two = ranking([""]), ranking(["M"]), ranking(["Brazil", "M"])
    assert abs(nothing - one).min() > 1e-4
    assert abs(one - two).min() > 1e-4
    np.testing.assert_allclose(ranking(["M", "", ""]), one, atol=1e-6)  # padding is nothing
    np.testing.assert_allclose(ranking(["never seen", "M"]), one, atol=1e-6)
    longer = ranking(["Brazil", "M", "Alien", "Amélie", "M", "M"])
    np.testing.assert_allclose(longer, ranking(["Brazil", "M", "Alien"]), atol=1e-6)


def test_the_pipeline_lies_beside_the_model(folder, pipeline):
    loaded = Pipeline.load(folder / "assets.extra" / "pipeline.json")
    assert (loaded.specs, loaded.learned) == (pipeline.specs, pipeline.learned)


@pytest.mark.slow
def test_a_model_that_ends_in_vectors_and_takes_some_columns(pipeline, tmp_path):
    part = Pipeline(SPECS[:2] + SPECS[5:6] + SPECS[7:8]).fit(TRAIN)
    tower = make_model(part, name="vector", units=6)
    served = tf.saved_model.load(export(tower, pipeline, tmp_path / "tower"))
    assert set(served.signatures["serve"].structured_input_signature[1]) == {
        "user", "item", "job", "seen",
    }  # fmt: skip
    found = served.serve(tensors(RAW, ["user", "item", "job", "seen"]))
    expected = tower.predict(part.transform(RAW), verbose=0)
    np.testing.assert_allclose(found["vector"], expected, atol=1e-6)


def test_what_is_there_is_replaced_or_left_alone(model, pipeline, tmp_path):
    small = Pipeline(SPECS[:2]).fit(TRAIN)
    other = make_model(small)
    export(other, small, tmp_path / "model")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not delete")
    with pytest.raises(ValueError) as error:
        export(other, small, mine)
    assert str(error.value) == f"folder must be new, empty or a SavedModel, got {mine}"
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match="fitted first"):
        export(other, Pipeline(SPECS[:2]), tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"]
    export(other, small, tmp_path / "model")
    assert tf.saved_model.load(tmp_path / "model").signatures["serve"]


def test_a_model_of_other_columns_is_refused(model, pipeline, tmp_path):
    def message(specs, table=TRAIN):
        with pytest.raises(ValueError) as error:
            export(model, Pipeline(specs).fit(table), tmp_path / "model")
        assert not list(tmp_path.iterdir())
        return str(error.value)

    others = "age, item, job, places, price, seen, user"
    assert message([s for s in SPECS if s.name not in ("year", "both")]) == (
        f"the model's columns must be among {others}, got year"
    )
    longer = [*SPECS[:-2], Sequence("seen", length=9), SPECS[-1]]
    assert message(longer) == "seen must have the length 9 of the pipeline, got (None, 3)"
    assert message([Normalised("age")]).startswith("the model's columns must be among age, got ")
    table = TRAIN | {"user": ["1"] * ROWS}
    assert message(SPECS, table) == "user must have the pipeline's size 2, got 9"


def test_names_with_spaces(tmp_path):
    pipeline = Pipeline([Hashed("user id", 9), Hashed("user_id", 9)]).fit(
        {"user id": ["a"], "user_id": ["b"]}
    )

    def model(names):
        inputs = {name: keras.Input((), name=name, dtype="int32") for name in names}
        return keras.Model(inputs, keras.ops.cast(sum(inputs.values()), "float32")[:, None])

    expected = [1 + zlib.crc32(b"x") % 8]
    names = {"user id": "user_id", "_x": "column__x", "2nd": "column_2nd", "年": "column__"}
    others = Pipeline([Hashed(name, 9) for name in names]).fit({name: ["a"] for name in names})
    export(model(names), others, tmp_path / "model")
    served = tf.saved_model.load(tmp_path / "model").signatures["serve"]
    raw = {plain: tf.constant(["x"]) for plain in names.values()}
    assert served(**raw)["logit"].numpy().tolist() == [4 * expected[0]]
    with pytest.raises(ValueError) as error:
        export(model(["user id", "user_id"]), pipeline, tmp_path / "model")
    assert str(error.value) == "the signature must have each column once, got user_id twice"


@pytest.mark.slow
def test_half_precision_gives_whole_scores(pipeline, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = make_model(pipeline)
        served = tf.saved_model.load(export(half, pipeline, tmp_path / "half"))
    finally:
        keras.config.set_dtype_policy("float32")
    found = served.serve(tensors(RAW))
    assert found["logit"].dtype == found["probability"].dtype == tf.float32
    expected = half.predict(pipeline.transform(RAW), verbose=0)[:, 0]
    np.testing.assert_allclose(found["logit"], np.float32(expected), rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepfm", "din", "dien"])
def test_the_recommenders_themselves(name, pipeline, tmp_path):
    from tfcourse import recommendation

    features = [f for f in pipeline.features if f.name in ("user", "item", "seen", "age", "year")]
    model = getattr(recommendation, f"build_{name}")(features)
    served = tf.saved_model.load(export(model, pipeline, tmp_path / "model"))
    names = [feature.name for feature in features]
    found = served.serve(tensors(RAW, names))["logit"]
    arrays = pipeline.transform(RAW)
    logits = model.predict({n: arrays[n] for n in names}, verbose=0)[:, 0]
    np.testing.assert_allclose(found, logits, atol=1e-6)
    assert np.ptp(logits) > 1e-4
