"""Documents cut into passages: bounded, at the ends of sentences, and with keys that last."""

from itertools import pairwise

import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE
from transformers import AutoTokenizer

from mkdm.errors import ConfigError
from mkdm.text.html import strip_html
from mkdm.text.passages import PassageCutter

FAMILIES = ("bert", "roberta", "xlm-roberta")


@pytest.fixture(scope="module")
def text() -> str:
    """A document of 60 real passages, a paragraph each."""
    return "\n\n".join(dict.fromkeys(pq.read_table(SAMPLE / "pairs.parquet")["passage"].to_pylist()[:300:5]))


def tokens(tokenizer, passage: str) -> int:
    return len(tokenizer(passage, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_passage_has_more_tokens_and_none_is_lost(tokenizers, family, text):
    tokenizer = tokenizers[family]
    for most in (16, 64):
        passages = [passage for _, passage in PassageCutter(tokenizer, most).cut(text)]
        sizes = [tokens(tokenizer, passage) for passage in passages]
        assert max(sizes) <= most
        assert sum(sizes) / len(sizes) > most / 2, "they are filled"
        assert "".join("".join(passages).split()) == "".join(text.split())


def test_truncation_and_padding_of_the_tokenizer_do_not_matter(text):
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    plain = PassageCutter(tokenizer, 64).cut(text)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=100)
    assert PassageCutter(tokenizer, 64).cut(text) == plain
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 8, "the tokenizer itself stays as it was"


def test_passages_end_where_sentences_end():
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    sentences = [f"Number {i} is a seal between two surfaces, e.g. of an engine." for i in range(40)]
    passages = [passage for _, passage in PassageCutter(tokenizer, 64).cut(" ".join(sentences))]
    assert len(passages) > 5
    assert all(passage.startswith("Number") and passage.endswith("engine.") for passage in passages)
    long = "word " * 500  # one sentence alone has too many
    assert all(tokens(tokenizer, passage) <= 64 for _, passage in PassageCutter(tokenizer, 64).cut(long))


def test_overlap_repeats_whole_sentences():
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    text = " ".join(f"Sentence {i} is here." for i in range(60))
    passages = [passage for _, passage in PassageCutter(tokenizer, 40, 12).cut(text)]
    for before, after in pairwise(passages):
        shared = after[: after.index(".") + 1]
        assert before.endswith(shared) or shared in before, (before, after)
    with pytest.raises(ConfigError, match="--passage-overlap is 40"):
        PassageCutter(tokenizer, 40, 40)


def test_an_unchanged_passage_keeps_its_key(text):
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    cutter = PassageCutter(tokenizer, 128)
    paragraphs = text.split("\n\n")
    before = dict(cutter.cut(text))
    after = dict(
        cutter.cut("\n\n".join([*paragraphs[:30], "A paragraph that was not there before.", *paragraphs[30:]]))
    )
    assert len(before.keys() & after.keys()) >= len(before) - 3
    assert all(before[key] == after[key] for key in before.keys() & after.keys())


def test_a_passage_that_recurs_has_a_key_of_its_own():
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    passage = " ".join(["A gasket is a seal between two surfaces."] * 3)
    keys = [key for key, _ in PassageCutter(tokenizer, 40).cut("\n\n".join([passage] * 3))]
    assert keys == [keys[0], f"{keys[0]}.2", f"{keys[0]}.3"]


@pytest.mark.parametrize(
    "odd", ["", " \n\u2003", "a" * 5000, "漢字" * 3000, "a\x00b. " * 50, "👩‍👩‍👧‍👦 " * 200, "\u202e\u200f x"]
)
def test_odd_texts(odd):
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    passages = PassageCutter(tokenizer, 32).cut(odd)
    assert all(tokens(tokenizer, passage) <= 32 for _, passage in passages)
    assert "".join("".join(passage for _, passage in passages).split()) == "".join(odd.split())


def test_html_is_taken_out_and_what_only_looks_like_it_stays():
    page = "<div><p>Fish &amp; <b>chips</b></p><script>if (a<b) x()</script><ul><li>one<li>two</ul><!-- no --></div>"
    assert strip_html(page) == "Fish & chips\none\ntwo"
    for text in ("a < b and c > d", "R&amp;D", "List<String> x", "mail <me@example.org>", "", "<3"):
        assert strip_html(text) == text
    assert strip_html("one<br>two<br/>three") == "one\ntwo\nthree"
    assert strip_html("open <b>and never closed") == "open and never closed"
    assert (
        strip_html("<!DOCTYPE html><html><head><title>T</title><body><p>All of it.</p></body></html>")
        == "T\nAll of it."
    )
    assert strip_html("<p>about the <head> tag, and more</p>") == "about the\ntag, and more"


@pytest.mark.parametrize(
    "marked", ["<![0]", "<![foo[ bar ]]>", "<![if !IE]>", "<![CDATA[x]]>", "<![", "<!", "</", "<!--"]
)
def test_html_that_is_broken_off_or_odd_loses_no_text_around_it(marked):
    found = strip_html(f"<p>before {marked} after</p><p>last</p>")
    assert found.startswith("before")
    assert "last" in found or marked == "<!--", found


def test_a_long_text_is_cut_in_parts_and_nothing_is_lost(text):
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "student")
    cutter = PassageCutter(tokenizer, 128)
    for long in (text * 3, "1,2,3," * 8000, "漢字。" * 15000):
        passages = [passage for _, passage in cutter.cut(long)]
        assert "".join("".join(passages).split()) == "".join(long.split())
        assert all(tokens(tokenizer, passage) <= 128 for passage in passages)
