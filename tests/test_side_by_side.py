"""Arrays of one type that lie side by side give the rows that each of them has."""

import keras
import numpy as np
import tensorflow as tf

from tfcourse.training.side_by_side import NARROW, SideBySide


def test_rows_are_numpys_in_any_structure():
    rng = np.random.default_rng(0)
    numbers = {
        "id": rng.integers(0, 9, 20).astype("int32"),
        "history": rng.integers(0, 9, (20, 3)).astype("int32"),
        "none": np.zeros((20, 0), "int32"),
        "price": rng.normal(size=20).astype("float32"),
        "wide": rng.normal(size=(20, NARROW + 1)).astype("float32"),
        "picture": rng.normal(size=(20, 4, 5)).astype("float32"),
        "text": np.array([f"row {i}" for i in range(20)]),
    }
    arrays = (numbers, rng.normal(size=(20, 1)).astype("float32"))
    kept, index = SideBySide(arrays), rng.integers(0, 20, 7)
    assert len(kept.tensors) == 5  # int32, float32, wide, picture, text
    rows = tf.function(kept.rows)(tf.constant(index))
    keras.tree.assert_same_structure(rows, arrays)
    for found, array in zip(keras.tree.flatten(rows), keras.tree.flatten(arrays), strict=True):
        expected = array[index].astype("S") if array.dtype.kind == "U" else array[index]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.numpy().astype(expected.dtype), expected)
