import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mkdm.evaluation.evaluation import AGAINST, MODEL, LabelledPairs, evaluate
from mkdm.pages.evaluation import evaluation_page

HOSTILE = "<script>alert('x')</script>\"&$x^2$--> "
ABOUT = [("model", f"/models/{HOSTILE}"), ("pairs", "warehouse/pairs, version 3")]
PLOTS = ["ROC, all pairs", "Calibration, all pairs", "AUC by source, with 95 % intervals"]
PLOTS.append("AUC and ACC by length of the pair")


class Elements(HTMLParser):
    """All elements of a page with their attributes, and which of them were left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pairs_of(groups: list[str]) -> LabelledPairs:
    """40 queries of three passages, the first of them golden."""
    rows = 120
    return LabelledPairs(
        query_ids=np.array([f"q{row // 3}" for row in range(rows)], dtype=object),
        passage_ids=np.array([f"p{row}" for row in range(rows)], dtype=object),
        queries=np.array(["what is it"] * rows, dtype=object),
        passages=np.array(["word " * (row % 11) for row in range(rows)], dtype=object),
        golden_labels=np.tile([1, 0, 0], 40),
        groups=np.array([groups[row // 3 % len(groups)] for row in range(rows)], dtype=object),
    )


def scores(seed: int) -> np.ndarray:
    return np.clip(np.tile([0.7, 0.4, 0.4], 40) + np.random.default_rng(seed).normal(size=120) / 4, 0, 1)


@pytest.fixture(scope="module")
def two_models() -> str:
    pairs = pairs_of(["amazon", HOSTILE, "a very long name of a source, longer than fits"])
    return evaluation_page(
        evaluate(pairs, {MODEL: scores(0), AGAINST: scores(1)}, 20), f"Evaluation of {HOSTILE}", ABOUT
    )


def test_page_needs_nothing_from_elsewhere(two_models):
    elements = Elements(two_models)
    assert elements.open == []
    for tag, attributes in elements.found:
        assert tag not in ("script", "link", "img", "iframe", "object", "image", "base")
        for name in ("src", "href", "xlink:href", "action", "style", "data"):
            value = attributes.get(name) or ""
            assert "//" not in value
            assert name not in ("src", "href", "xlink:href") or value.startswith("#") or not value, value
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in re.sub(r"url\(#\w+\)", "", two_models)
    assert "@import" not in two_models


def test_hostile_names_are_text(two_models):
    assert "<script" not in two_models
    assert "&lt;script&gt;alert" in two_models
    title = re.search(r"<title>(.*?)</title>", two_models).group(1)
    assert title.startswith("Evaluation of &lt;script&gt;")


def test_page_tells_all(two_models):
    assert re.findall(r"<figcaption>(.*?)</figcaption>", two_models) == PLOTS
    assert two_models.count("<svg") == 4
    assert "Paired test" in two_models
    for text in ("warehouse/pairs, version 3", "word overlap", "BM25", "model − against", "120 pairs, 40 queries"):
        assert text in two_models
    assert len(two_models) < 400_000


def test_one_model_without_groups_and_of_one_class_is_a_page_too():
    pairs = pairs_of([""])
    alone = evaluation_page(evaluate(pairs, {MODEL: scores(0)}, 20), "t", ABOUT)
    assert "Paired test" not in alone
    assert alone.count("<svg") == 4
    one_class = LabelledPairs(**(vars(pairs) | {"golden_labels": np.zeros(120, dtype=np.int64)}))
    text = evaluation_page(evaluate(one_class, {MODEL: scores(0), AGAINST: scores(1)}, 20), "t", ABOUT)
    assert "<td>–</td>" in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert "nan" not in "".join(re.findall(r"<text.*?</text>", text, flags=re.DOTALL))


def test_same_evaluation_gives_the_same_page():
    evaluation = evaluate(pairs_of(["a", "b"]), {MODEL: scores(0)}, 20)
    assert evaluation_page(evaluation, "t", ABOUT) == evaluation_page(evaluation, "t", ABOUT)
