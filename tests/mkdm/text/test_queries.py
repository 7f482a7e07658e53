"""Queries that are the same however they were typed."""

import unicodedata

import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE

from mkdm.text.queries import normalise_query, words


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("  What is\ta  GASKET ", "what is a gasket"),
        ("what\u00a0is\u3000a gasket\n", "what is a gasket"),
        ("ＷＨＡＴ is a ﬁlter", "what is a filter"),
        ("cafe\u0301", "caf\u00e9"),
        ("Straße", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("한국어 질문", "한국어 질문"),
        (" \u2003\n", ""),
        ("café\u200b menu", "café menu"),
        ("\u200fcafé menu\u200e", "café menu"),
        ("\ufeffcaf\u00adé\u2060 \u2066menu\u2069", "café menu"),
        ("caf\u200cé me\u200dnu", "café menu"),
        ("\u2800café\u3164menu", "café menu"),
        ("\u200b\u200e\ufeff\u3164", ""),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d👩\u200d👧 ❤\ufe0f", "👩\u200d👩\u200d👧 ❤\ufe0f"),
        ("", ""),
    ],
)
def test_normalised_text(typed, text):
    assert normalise_query(typed) == text


def test_doing_it_twice_changes_nothing():
    letters = [chr(code) for code in range(0x3200) if not 0xD800 <= code < 0xE000]
    unseen = ("a\u200b{}", "{}\u200d{}", "{}\ufe0f\u200cx")
    texts = [*letters, *(letter + "\u0307\u0301" for letter in letters), "İI\u0307 ǅ"]
    texts += [form.replace("{}", letter) for form in unseen for letter in letters]
    texts += pq.read_table(SAMPLE / "pairs.parquet")["query"].to_pylist()[::50]
    for text in texts:
        once = normalise_query(text)
        assert normalise_query(once) == once, [hex(ord(letter)) for letter in text]
        assert unicodedata.is_normalized("NFKC", once)
        assert once == " ".join(once.split())


def test_words():
    assert words("What's a GASKET_2, Größe? 42") == ["what", "s", "a", "gasket_2", "größe", "42"]
    assert words(" … ") == []
