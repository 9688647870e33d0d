"""gensim's word2vec on one thread: waits for a line, trains for an epoch, says how long it took.

    python gensim_word2vec.py KIND TEXT.npy VECTORS.npy

TEXT.npy has a sentence of ids a row. The last vectors are written when the lines end.
"""

import sys
import time

import numpy as np
from gensim.models import Word2Vec


def main() -> None:
    kind, text, found = sys.argv[1:]
    ids = np.load(text)
    sentences = [[str(i) for i in row] for row in ids]
    model = Word2Vec(
        vector_size=100,
        window=5,
        negative=5,
        sg=int(kind == "skip_gram"),
        sample=0,
        min_count=1,
        workers=1,
        seed=0,
    )
    model.build_vocab(sentences)
    print("ready", flush=True)
    for line in sys.stdin:
        epochs = int(line)
        start = time.perf_counter()
        model.train(sentences, total_examples=len(sentences), epochs=epochs)
        print(time.perf_counter() - start, flush=True)
    vectors = np.zeros((ids.max() + 1, 100), np.float32)
    for word, place in model.wv.key_to_index.items():
        vectors[int(word)] = model.wv.vectors[place]
    np.save(found, vectors)


if __name__ == "__main__":
    main()
