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
