import math
from collections import Counter

import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE

from mkdm.evaluation.baselines import bm25, word_overlap
from mkdm.text import words


def test_word_overlap_is_the_share_of_distinct_query_words():
    overlap = word_overlap(["What is a Gasket?", "a a b", "…"], ["a gasket IS a seal", "b", "x"])
    assert overlap.tolist() == pytest.approx([3 / 4, 1 / 2, 0.0])


def test_bm25_by_hand():
    passages = ["a gasket is a seal", "a seal", "the pump"]
    found = bm25(["gasket seal", "Seal? seal!", "nothing"], passages)
    average = (5 + 2 + 2) / 3

    def part(df: int, length: int) -> float:
        return math.log(1 + (3 - df + 0.5) / (df + 0.5)) / (1 + 1.2 * (0.25 + 0.75 * length / average))

    assert found.tolist() == pytest.approx([part(1, 5) + part(2, 5), part(2, 2), 0.0])
    twice = bm25(["a", "a"], [passages[0], passages[0]])
    frequency = math.log(1 + 0.5 / 1.5)  # one distinct passage, which has the word
    assert twice.tolist() == pytest.approx([frequency * 2 / (2 + 1.2)] * 2)
    assert bm25(["…"], ["…"]).tolist() == [0.0]


def test_bm25_of_real_pairs_is_that_of_its_definition():
    rows = pq.read_table(SAMPLE / "pairs.parquet").slice(0, 400).to_pydict()
    queries, passages = rows["query"], rows["passage"]
    counted = {passage: Counter(words(passage)) for passage in passages}
    average = sum(counts.total() for counts in counted.values()) / len(counted)
    frequency = Counter(word for counts in counted.values() for word in counts)

    def one(query: str, passage: str) -> float:
        counts = counted[passage]
        norm = 1.2 * (0.25 + 0.75 * counts.total() / average)
        return sum(
            math.log(1 + (len(counted) - frequency[word] + 0.5) / (frequency[word] + 0.5))
            * counts[word]
            / (counts[word] + norm)
            for word in set(words(query))
        )

    expected = [one(query, passage) for query, passage in zip(queries, passages, strict=True)]
    assert bm25(queries, passages).tolist() == pytest.approx(expected, abs=1e-5)


def test_bm25_of_no_words_or_no_pairs():
    assert bm25([], []).tolist() == []
    assert bm25(["…", "a"], ["…", ""]).tolist() == [0.0, 0.0]
    assert bm25(["…"], ["a"]).tolist() == [0.0]
