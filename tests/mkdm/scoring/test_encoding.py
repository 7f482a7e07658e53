import numpy as np
import pytest
from tiny_models import FAMILIES

from mkdm.errors import RejectCode
from mkdm.scoring.encoding import PairEncoder, bisect_failures


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_length", [96, 512])
def test_equals_the_tokenizers_own_pair_encoding(family, max_length, tokenizers, texts):
    tokenizer = tokenizers[family]
    own = tokenizer(*texts, truncation="only_second", max_length=max_length, padding=True, return_tensors="np")
    tokenizer.backend_tokenizer.no_truncation()
    encoder = PairEncoder(tokenizer, max_length)

    pairs = encoder.encode(*texts)
    batch = encoder.batch(pairs, np.arange(len(texts[0])))

    assert pairs.errors == {}
    np.testing.assert_array_equal(batch.input_ids, own["input_ids"])
    np.testing.assert_array_equal(batch.attention_mask, own["attention_mask"])
    assert (batch.token_type_ids is not None) == ("token_type_ids" in own)
    if batch.token_type_ids is not None:
        np.testing.assert_array_equal(batch.token_type_ids, own["token_type_ids"])


def test_truncation_takes_from_the_passage_and_never_from_the_query(tokenizers):
    encoder = PairEncoder(tokenizers["bert"], 12)
    pairs = encoder.encode(["what is a gasket"], ["a seal " * 50])
    full_query = encoder.encode(["what is a gasket"], ["a"])
    assert pairs.lengths.tolist() == [12]
    np.testing.assert_array_equal(pairs.query_ids[0], full_query.query_ids[0])
    assert len(pairs.passage_ids[0]) == 12 - 3 - len(pairs.query_ids[0])


def test_query_that_leaves_no_room_is_rejected_and_one_token_less_is_not(tokenizers):
    encoder = PairEncoder(tokenizers["bert"], 8)
    pairs = encoder.encode(["a a a a a", "a a a a"], ["a seal", "a seal"])
    assert pairs.errors[0].code is RejectCode.QUERY_TOO_LONG
    assert "5 tokens" in pairs.errors[0].message
    assert pairs.lengths.tolist() == [0, 8]


@pytest.mark.parametrize(
    ("query", "passage", "code"),
    [
        (None, "a", RejectCode.NULL_QUERY),
        ("a", None, RejectCode.NULL_PASSAGE),
        ("", "a", RejectCode.EMPTY_QUERY),
        ("a", " \t\n", RejectCode.EMPTY_PASSAGE),
        ("a", "\x00\x01", RejectCode.EMPTY_PASSAGE),
        ("a", "lone surrogate \ud800", RejectCode.TOKENIZER_ERROR),
    ],
)
def test_bad_text_is_an_error_of_its_row_alone(query, passage, code, tokenizers):
    pairs = PairEncoder(tokenizers["bert"], 64).encode(["a", query, "a"], ["b", passage, "c"])
    assert {row: error.code for row, error in pairs.errors.items()} == {1: code}
    assert pairs.lengths[[0, 2]].min() > 0


def test_each_distinct_text_is_tokenised_once(tokenizers):
    ids, refused = PairEncoder(tokenizers["bert"], 64).tokenise(["gasket", "seal", "gasket"])
    assert sorted(ids) == ["gasket", "seal"]
    assert refused == {}
    pairs = PairEncoder(tokenizers["bert"], 64).encode(["gasket"] * 3, ["seal"] * 3)
    assert pairs.query_ids[0] is pairs.query_ids[1]


def test_bisection_finds_the_bad_items_and_does_the_others_once():
    done: list[int] = []
    failed: list[int] = []

    def work(items: list[int]) -> None:
        if 13 in items or 40 in items:
            raise ValueError("bad luck")
        done.extend(items)

    bisect_failures(list(range(64)), work, lambda item, error: failed.append(item))
    assert failed == [13, 40]
    assert sorted(done) == [item for item in range(64) if item not in (13, 40)]


def test_bisection_lets_memory_errors_through():
    def work(items: list[int]) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        bisect_failures([1, 2], work, lambda item, error: None)
