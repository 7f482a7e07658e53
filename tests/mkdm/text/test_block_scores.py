import math
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE

from mkdm.evaluation.baselines import bm25, word_overlap
from mkdm.text import word_scores, words

rows = pq.read_table(SAMPLE / "pairs.parquet").slice(0, 600).to_pydict()
PASSAGES = list(dict.fromkeys(rows["passage"]))
QUERIES = [*dict.fromkeys(rows["query"]), "…", "zzyzx qwxyz", "zzyzx the the", ""]
FREQUENCY = Counter(word for passage in PASSAGES for word in set(words(passage)))
MEAN = sum(len(words(passage)) for passage in PASSAGES) / len(PASSAGES)


def weight(word: str) -> float:
    return math.log(1 + (len(PASSAGES) - FREQUENCY[word] + 0.5) / (FREQUENCY[word] + 0.5))


def weights(queries: list[str]) -> list[np.ndarray]:
    return [np.array([weight(word) for word in dict.fromkeys(words(query))]) for query in queries]


def by_definition(query: str, passage: str) -> float:
    counts = Counter(words(passage))
    norm = 1.2 * (0.25 + 0.75 * counts.total() / MEAN)
    return sum(weight(word) * counts[word] / (counts[word] + norm) for word in set(words(query)))


@pytest.fixture(scope="module")
def both() -> tuple[np.ndarray, np.ndarray]:
    return word_scores(QUERIES, PASSAGES, weights(QUERIES), MEAN), word_scores(QUERIES, PASSAGES)


def test_a_block_has_the_scores_of_the_definitions(both):
    found, overlap = both
    assert found.dtype == overlap.dtype == np.float64
    assert found.shape == overlap.shape == (len(QUERIES), len(PASSAGES))
    pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
    np.testing.assert_allclose(found.ravel(), [by_definition(*pair) for pair in pairs], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.ravel(), bm25(*zip(*pairs, strict=True)), rtol=1e-6)
    np.testing.assert_allclose(overlap.ravel(), word_overlap(*zip(*pairs, strict=True)), rtol=1e-6)
    assert 0 < (found == 0).mean() < 1
    assert ((found == 0) == (overlap == 0)).all()


def test_a_query_without_a_known_word_scores_nothing(both):
    for scores in both:
        nothing, unknown, some, empty = scores[-4:]
        assert not np.concatenate([nothing, unknown, empty]).any()
        assert some.any(), "one word of it is known"


def test_a_score_does_not_depend_on_the_rest_of_the_block(both):
    found, overlap = both
    for some in (slice(0, 1), slice(7, 40, 3), slice(None, None, -1)):
        queries, passages = QUERIES[some], PASSAGES[some]
        assert (word_scores(queries, passages, weights(queries), MEAN) == found[some, some]).all()
        assert (word_scores(queries, passages) == overlap[some, some]).all()


def test_blocks_of_nothing():
    assert word_scores([], []).shape == (0, 0)
    assert word_scores([], ["a"]).shape == (0, 1)
    assert word_scores(["a"], [], [np.ones(1)], 1.0).shape == (1, 0)
    assert word_scores(["a", ""], ["", "…"], [np.ones(1), np.empty(0)]).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="same size"):
        word_scores(["two words"], ["words"], [np.ones(1)], 1.0)
