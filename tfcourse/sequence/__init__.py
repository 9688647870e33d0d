"""Sequences of tokens: to vectors, to a class, to another sequence."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.sequence.count_vectors import fit_count_vectors  # noqa: E402
from tfcourse.sequence.decoding import attention_maps, beam_search, greedy_search  # noqa: E402
from tfcourse.sequence.language_model import build_language_model  # noqa: E402
from tfcourse.sequence.ngrams import NGrams, fit_ngrams  # noqa: E402
from tfcourse.sequence.rnn import build_rnn  # noqa: E402
from tfcourse.sequence.sampling_text import sample_tokens  # noqa: E402
from tfcourse.sequence.seq2seq import build_seq2seq  # noqa: E402
from tfcourse.sequence.tdnn import build_tdnn  # noqa: E402
from tfcourse.sequence.textcnn import build_textcnn  # noqa: E402
from tfcourse.sequence.transformer import build_transformer  # noqa: E402
from tfcourse.sequence.word2vec import Word2Vec, fit_word2vec  # noqa: E402

__all__ = [
    "NGrams",
    "Word2Vec",
    "attention_maps",
    "beam_search",
    "build_language_model",
    "build_rnn",
    "build_seq2seq",
    "build_tdnn",
    "build_textcnn",
    "build_transformer",
    "fit_count_vectors",
    "fit_ngrams",
    "fit_word2vec",
    "greedy_search",
    "sample_tokens",
]
