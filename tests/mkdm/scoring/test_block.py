"""Blocks: some queries and passages, each text once, and the pairs that meet."""

import numpy as np
import pytest

from mkdm.errors import InputError, RejectCode
from mkdm.scoring.block import Block
from mkdm.scoring.scorer import Scorer
from mkdm.scoring.token_cache import TokenCache


@pytest.fixture(scope="module")
def scorer(student_folder) -> Scorer:
    return Scorer.load(student_folder, precision="fp32")


def test_block_scores_are_those_of_the_pairs(scorer, texts):
    queries, passages = texts[0][:20], texts[1][:30]
    drawn = np.random.default_rng(0).permutation(600)[:200]
    pairs = np.stack((drawn // 30, drawn % 30), axis=1)
    result = scorer.score_block(queries, passages, pairs)
    window = scorer.score_window([queries[q] for q, _ in pairs], [passages[p] for _, p in pairs])
    np.testing.assert_array_equal(result.scores, window.scores, "the same batches, bit for bit")
    alone = scorer.score_window([queries[pairs[7][0]]], [passages[pairs[7][1]]])
    np.testing.assert_allclose(result.scores[7], alone.scores[0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(result.tokens, window.tokens)
    assert result.errors == {}


def test_all_with_all(scorer, texts):
    result = scorer.score_block(texts[0][:3], texts[1][:4])
    each = scorer.score([query for query in texts[0][:3] for _ in range(4)], texts[1][:4] * 3)
    np.testing.assert_allclose(result.scores, each, rtol=0, atol=1e-5)


def test_each_text_is_tokenised_once(student_folder, texts, monkeypatch):
    scorer = Scorer.load(student_folder, precision="fp32")
    scorer._encoder._cache = TokenCache()  # the one that it has may know them from another test
    seen = []
    whole = scorer._encoder._texts.ids
    monkeypatch.setattr(scorer._encoder._texts, "ids", lambda part: seen.extend(part) or whole(part))
    scorer.score_block(texts[0][:5], texts[1][:6])
    assert sorted(seen) == sorted({*texts[0][:5], *texts[1][:6]})


def test_faults_of_a_text_are_those_of_its_pairs(scorer):
    result = scorer.score_block(["a", None, "a " * 200], ["a seal", " "])
    assert {row: error.code for row, error in result.errors.items()} == {
        1: RejectCode.EMPTY_PASSAGE,
        2: RejectCode.NULL_QUERY,
        3: RejectCode.NULL_QUERY,
        4: RejectCode.QUERY_TOO_LONG,
        5: RejectCode.EMPTY_PASSAGE,
    }
    assert np.isnan(result.scores).tolist() == [False] + [True] * 5


def test_equal_texts_at_several_places_are_scored_once(scorer):
    result = scorer.score_block(["a", "a"], ["a seal", "a seal"])
    assert (result.padded_tokens > 0).tolist() == [True, False, False, False]
    assert len(set(result.scores.tolist())) == 1


def test_block_of_nothing(scorer):
    assert scorer.score_block([], []).scores.shape == (0,)
    assert scorer.score_block(["a"], ["b"], []).scores.shape == (0,)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([(0, 0), (1, 0)], "pair 1 has query 1, of 1, counted from 0"),
        ([(0, -1)], "pair 0 has passage -1, of 1, counted from 0"),
        ([0, 0], r"the pairs of a block are int64 of shape \(2,\); they must be whole numbers, two a pair"),
        ([(0.0, 0.0)], "the pairs of a block are float64"),
    ],
)
def test_pairs_that_are_none(scorer, pairs, told):
    with pytest.raises(InputError, match=told):
        scorer.score_block(["a"], ["b"], pairs)


def test_block_of_pairs_has_each_text_once():
    block = Block.of_pairs(["a", "b", "a", None], ["x", "x", "y", "x"])
    assert (block.queries, block.passages) == (["a", "b", None], ["x", "y"])
    assert block.pairs.tolist() == [[0, 0], [1, 0], [0, 1], [2, 0]]
