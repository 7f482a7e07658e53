import copy

import numpy as np

from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.token_cache import TokenCache


def test_forgets_what_was_not_asked_for_longest():
    cache = TokenCache(max_bytes=1000)  # room for three entries of some 300 bytes
    for text in ("a", "b", "c"):
        cache.put(text, np.array([ord(text)], dtype=np.int32))
    assert cache.get("a").tolist() == [97]
    cache.put("d", np.array([100], dtype=np.int32))
    assert cache.get("b") is None
    assert [cache.get(text).tolist() for text in ("a", "c", "d")] == [[97], [99], [100]]


def test_text_larger_than_the_cache_is_not_kept():
    cache = TokenCache(max_bytes=1000)
    cache.put("a" * 2000, np.zeros(500, dtype=np.int32))
    assert cache.get("a" * 2000) is None
    cache.put("b", np.zeros(1, dtype=np.int32))
    assert cache.get("b") is not None


def test_a_text_is_tokenised_once_over_windows(tokenizers, texts):
    encoder = PairEncoder(tokenizers["bert"], 128)
    encoder._cache = TokenCache()  # the one that it has may know them from another test
    rust, seen = encoder._texts._rust, []

    class Counted:
        def encode_batch(self, part, **flags):
            seen.extend(part)
            return rust.encode_batch(part, **flags)

    encoder._texts._rust = Counted()
    queries, passages = (list(some[:30]) for some in texts)
    first = encoder.encode(queries, passages)
    again = encoder.encode(queries[::-1], passages)
    assert sorted(seen) == sorted({*queries, *passages})
    for row in range(30):
        np.testing.assert_array_equal(again.query_ids[row], first.query_ids[29 - row])


def test_teachers_with_one_tokenizer_tokenise_a_text_once(tokenizers):
    """And those with others, or with other control tokens, apart."""
    first, second = (PairEncoder(copy.deepcopy(tokenizers["bert"]), 128) for _ in range(2))
    ids, _ = first.tokenise(["a gasket of their own"])
    second._texts = None  # which is not asked
    assert second.tokenise(["a gasket of their own"])[0].keys() == ids.keys()
    third = PairEncoder(tokenizers["roberta"], 128)
    assert third.tokenise(["a gasket of their own"])[0]["a gasket of their own"].tolist() != ids.popitem()[1].tolist()
    other = copy.deepcopy(tokenizers["bert"])
    other.add_special_tokens({"additional_special_tokens": ["gasket"]})
    assert PairEncoder(other, 128)._cache is not first._cache
