"""Which of many texts is nearest to another: TF-IDF (Sparck Jones, 1972) and the cosine.

https://doi.org/10.1108/eb026526. A token counts more the more often it is in a text, and less the
more texts have it.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def nearest_texts(
    texts: Sequence[list[str]], queries: Sequence[list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the text that is nearest to each query, by TF-IDF and the cosine.

    A token counts (1 + log of how often it is in the text) (1 + log of how rare it is in all), rare
    being (1 + texts) / (1 + texts that have it), and a text as the vector of its tokens. Of equally
    near ones it is the first.

    Args:
        texts: Tokens of each, that are searched.
        queries: Tokens of each.

    Returns:
        Rows of `texts`, and how near they are, from 0 to 1 for the same tokens; `(queries,)` each.
    """
    found = {}
    for row, tokens in enumerate(texts):
        for token, weight in _weights(tokens).items():
            found.setdefault(token, []).append((row, weight))
    rarity = {t: 1 + np.log((1 + len(texts)) / (1 + len(e))) for t, e in found.items()}
    rows = {t: np.array([row for row, _ in e]) for t, e in found.items()}
    weights = {t: np.array([weight for _, weight in e]) * rarity[t] for t, e in found.items()}
    lengths = np.zeros(len(texts))
    for token in found:
        lengths[rows[token]] += weights[token] ** 2
    lengths = np.sqrt(np.maximum(lengths, 1e-12))
    nearest, cosines = [], []
    for tokens in queries:
        scores, length = np.zeros(len(texts)), 1e-12
        for token, weight in _weights(tokens).items():
            own = weight * rarity.get(token, 1 + np.log(1 + len(texts)))
            length += own**2
            if token in found:
                scores[rows[token]] += own * weights[token]
        scores /= lengths
        nearest.append(int(np.argmax(scores)))
        cosines.append(scores[nearest[-1]] / length**0.5)
    return np.array(nearest), np.array(cosines)


def _weights(tokens: Sequence[str]) -> dict[str, float]:
    return {token: 1 + np.log(count) for token, count in Counter(tokens).items()}
