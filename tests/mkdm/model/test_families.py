"""Every family scores as plain transformers does, one pair at a time and unpadded; README's list is of those proven."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_teachers import (
    chat_tokenizer,
    llama_tokenizer,
    plain_scores,
    save_classifier,
    save_generator,
    t5_tokenizer,
)

from mkdm.errors import ModelError
from mkdm.model import FAMILIES, Prompting, model_version
from mkdm.scoring import Scorer
from udfs.scoring import check_model

README = Path(__file__).parents[3] / "README.md"
ENCODERS = [name for name, family in FAMILIES.items() if family.kind == "encoder"]
DECODERS = [name for name, family in FAMILIES.items() if family.kind == "decoder"]
GENERATORS = [name for name, family in FAMILIES.items() if family.kind == "encoder-decoder"]
VARIANTS = [
    ("modernbert", {"classifier_pooling": "mean"}),
    ("eurobert", {"classifier_pooling": "mean"}),
    ("eurobert", {"classifier_pooling": "bos"}),
    ("gte", {"type_vocab_size": 1}),
    ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": True}),
    ("deberta-v2", {"share_att_key": False, "position_buckets": -1, "type_vocab_size": 2}),
]
TOKENS = 96


@pytest.fixture(scope="module")
def pairs(texts):
    """Sixteen pairs of mixed lengths, a short query each; of some passages the end is cut off."""
    queries = [query[: 10 + 3 * place] for place, query in enumerate(texts[0][:16])]
    passages = [
        text * (1 + place % 4) if place % 3 else text[: 5 + 9 * place] for place, text in enumerate(texts[1][:16])
    ]
    return queries, passages


@pytest.fixture(scope="module")
def corpus(texts):
    return [*texts[0], *texts[1]]


@pytest.fixture(scope="module")
def chat(corpus):
    return chat_tokenizer(corpus)


@pytest.fixture(scope="module")
def llama(corpus):
    return llama_tokenizer(corpus)


@pytest.fixture(scope="module")
def t5(corpus):
    return t5_tokenizer(corpus)


def own_scores(folder, pairs, **more):
    """In batches of several shapes, padded and not."""
    scorers = [Scorer.load(folder, "torch", "fp32", TOKENS, budget, 1, **more) for budget in (None, 1, 300)]
    first, *others = (scorer.score(*pairs) for scorer in scorers)
    for one in others:
        np.testing.assert_allclose(one, first, rtol=0, atol=1e-5)
    return first


def check(found, expected):
    assert np.ptp(expected) > 1e-3, "scores that do not differ would prove nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def tokenizer_for(family, tokenizers):
    return tokenizers["bert" if family in ("bert", "deberta-v2", "nomic_bert", "rembert") else "roberta"]


@pytest.mark.parametrize(("family", "more"), [*((one, {}) for one in ENCODERS), *VARIANTS])
def test_encoders(family, more, tokenizers, pairs, tmp_path):
    tokenizer = tokenizer_for(family, tokenizers)
    model = save_classifier(tmp_path, family, tokenizer, **more)

    def logit(query, passage):
        inputs = tokenizer(query, passage, truncation="only_second", max_length=TOKENS, return_tensors="pt")
        return model(**inputs).logits

    expected = plain_scores(*pairs, logit)
    tokenizer.backend_tokenizer.no_truncation()
    check(own_scores(tmp_path, pairs), expected)


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_with_a_header_of_one_label(family, chat, pairs, tmp_path):
    model = save_classifier(tmp_path, family, chat)

    def logit(query, passage):
        inputs = chat(query, passage, truncation="only_second", max_length=TOKENS, return_tensors="pt")
        return model(**inputs).logits

    check(own_scores(tmp_path, pairs), plain_scores(*pairs, logit))


TEMPLATE = "A: {query}\nB: {passage}\nDoes B answer A?"


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_that_answer_in_words(family, llama, chat, pairs, tmp_path):
    """With a template of the zoo; by a tokenizer that begins texts with a token of its own and has none for padding."""
    tokenizer = chat if family.startswith("qwen") else llama  # transformers adds tokens to others of Qwen's
    model = save_generator(tmp_path, family, tokenizer)
    yes, no, tail = (tokenizer.encode(text, add_special_tokens=False) for text in ("Yes", "No", "\nDoes B answer A?"))

    def logit(query, passage):
        ids = tokenizer(TEMPLATE.format(query=query, passage=passage), return_tensors="pt").input_ids
        if ids.shape[1] > TOKENS:
            ids[0, TOKENS - len(tail) : TOKENS] = ids.new_tensor(tail)
        logits = model(ids[:, :TOKENS]).logits[0, -1]
        return logits[yes] - logits[no]

    check(own_scores(tmp_path, pairs, prompting=Prompting(None, TEMPLATE, "Yes")), plain_scores(*pairs, logit))


def test_decoder_that_nothing_tells_how_to_ask(llama, tmp_path):
    save_generator(tmp_path, "llama", llama)
    for prompting, message in (
        (
            Prompting(),
            "answers in words: give the label that means relevant, one of yes, Yes, .*; as a flag of mkdm score, or",
        ),
        (
            Prompting(label="Yes"),
            "answers in words, and nothing tells how to ask it: give a template .* in its entry of a zoo",
        ),
        (Prompting(None, "{query}", "Yes"), r"must have \{query\} once and then \{passage\} once"),
        (Prompting(None, "{prompt} {query} {passage}", "Yes"), r"has \{prompt\}: give a prompt beside it"),
        (Prompting("Is it?", TEMPLATE, "Yes"), r"has no place for its prompt: write \{prompt\} into it"),
        (Prompting(None, "chat", "Yes"), "no chat template with the roles query and document"),
        (Prompting(None, "{query}{passage}", "Yes"), "the tokenizer joins the template with the texts in it"),
        (Prompting(None, TEMPLATE, "true"), "has no single tokens for true and false"),
    ):
        with pytest.raises(ModelError, match=message) as told:
            check_model(str(tmp_path), "torch", "fp32", prompting=prompting)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(("family", "words"), [("t5", ("true", "false")), ("mt5", ("yes", "no"))])
def test_mono_t5(family, words, t5, pairs, tmp_path):
    """As its card says, but for the template's end, which a passage that is too long does not push out."""
    model = save_generator(tmp_path, family, t5)
    yes, no = (t5.convert_tokens_to_ids(f"\u2581{word}") for word in words)
    end = t5(" Relevant:").input_ids

    def logit(query, passage):
        ids = t5(f"Query: {query} Document: {passage} Relevant:", return_tensors="pt").input_ids
        if ids.shape[1] > TOKENS:
            ids[0, TOKENS - len(end) : TOKENS] = ids.new_tensor(end)
        logits = model(input_ids=ids[:, :TOKENS], decoder_input_ids=ids.new_zeros(1, 1)).logits[0, 0]
        return logits[yes] - logits[no]

    check(own_scores(tmp_path, pairs), plain_scores(*pairs, logit))


def qwen_logit(model, tokenizer, instruction):
    """The score of Qwen3-Reranker's card: prefix, body and suffix are tokenised apart, and the body is cut."""
    prefix = tokenizer.encode(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))

    def logit(query, passage):
        body = tokenizer.encode(f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {passage}")
        room = 2 * TOKENS - len(prefix) - len(suffix)
        ids = tokenizer.pad({"input_ids": [prefix + body[:room] + suffix]}, return_tensors="pt").input_ids
        logits = model(ids).logits[0, -1]
        return logits[yes] - logits[no]

    return logit


@pytest.mark.parametrize("instruction", [None, "Find the part that fits."])
def test_qwen3_reranker(instruction, chat, pairs, tmp_path):
    model = save_generator(tmp_path, "qwen3", chat, max_position_embeddings=2 * TOKENS)
    own = "Given a web search query, retrieve relevant passages that answer the query"
    queries = [f"{query}?" for query in pairs[0]]  # which the tokenizer joins with the line break
    expected = plain_scores(queries, pairs[1], qwen_logit(model, chat, instruction or own))
    scorer = Scorer.load(tmp_path, "torch", "fp32", prompting=Prompting(instruction))
    check(scorer.score(queries, pairs[1]), expected)
    assert scorer.model_version != model_version(tmp_path), "how it is asked is part of its version"
    other = Scorer.load(tmp_path, "torch", "fp32", prompting=Prompting("another"))
    assert other.model_version != scorer.model_version


def test_family_that_is_not_known_is_refused_with_those_that_are(tokenizers, tmp_path):
    save_classifier(tmp_path, "bert", tokenizers["bert"])
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"model_type": "bert"', '"model_type": "new"'))
    with pytest.raises(
        ModelError, match=r"of the family new, which is not supported: take one of bert,.*, mt5$"
    ) as told:
        check_model(str(tmp_path), "torch", "fp32")
    assert "\n" not in str(told.value)


def test_readme_lists_the_families_that_are_proven_here():
    titles = ", ".join(family.title for family in FAMILIES.values())
    assert {*ENCODERS, *DECODERS, *GENERATORS} == FAMILIES.keys()
    assert titles in re.sub(r"\s+", " ", README.read_text())


@pytest.mark.parametrize("family", ["modernbert", "qwen3"])
def test_positions_are_exact_in_bf16(family, tokenizers, chat, pairs, tmp_path):
    save_classifier(tmp_path, family, chat if family == "qwen3" else tokenizers["roberta"])
    scorer = Scorer.load(tmp_path, "torch", "bf16", TOKENS)
    frequencies = [one for name, one in scorer.backend._model.named_buffers() if name.endswith("inv_freq")]
    assert {one.dtype for one in frequencies} == {torch.float32}
    assert {one.dtype for one in scorer.backend._model.parameters()} == {torch.bfloat16}
    expected = Scorer.load(tmp_path, "torch", "fp32", TOKENS).score(*pairs)
    np.testing.assert_allclose(scorer.score(*pairs), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(("family", "ported"), [("bert", False), ("eurobert", True)])
def test_code_of_a_models_own_is_never_run(family, ported, tokenizers, pairs, tmp_path):
    """Where transformers has the same architecture by now, that is used; else the model is refused."""
    save_classifier(tmp_path, family, tokenizer_for(family, tokenizers))
    config = json.loads((tmp_path / "config.json").read_text())
    own = {"AutoModelForSequenceClassification": "modeling_own.OwnModel", "AutoConfig": "configuration_own.OwnConfig"}
    plain = Scorer.load(tmp_path, "torch", "fp32").score(*pairs)
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": own}))
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('was run')")
    (tmp_path / "configuration_own.py").write_text("raise SystemExit('was run')")
    if ported:
        np.testing.assert_array_equal(Scorer.load(tmp_path, "torch", "fp32").score(*pairs), plain)
    else:
        with pytest.raises(ModelError, match="brings code of its own, which is never run"):
            Scorer.load(tmp_path, "torch", "fp32")
