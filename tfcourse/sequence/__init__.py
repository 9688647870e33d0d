"""Sequences of tokens: to vectors, to a class, to another sequence."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.sequence.language_model import build_language_model  # noqa: E402
from tfcourse.sequence.rnn import build_rnn  # noqa: E402
from tfcourse.sequence.tdnn import build_tdnn  # noqa: E402
from tfcourse.sequence.textcnn import build_textcnn  # noqa: E402
from tfcourse.sequence.word2vec import Word2Vec, fit_word2vec  # noqa: E402

__all__ = [
    "Word2Vec",
    "build_language_model",
    "build_rnn",
    "build_tdnn",
    "build_textcnn",
    "fit_word2vec",
]
