import numpy as np
import pytest
import torch
from tiny_models import spread_scores, tiny_config
from transformers import BertForSequenceClassification

from mkdm.errors import ModelError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.labels import relevant_label
from mkdm.scoring.scorer import Scorer


@pytest.mark.parametrize(
    ("names", "relevant"),
    [
        (None, 1),
        (["LABEL_0", "LABEL_1"], 1),
        (["LABEL_1", "LABEL_0"], 0),
        (["relevant", "irrelevant"], 0),
        (["not relevant", "relevant"], 1),
        (["non-relevant", "Relevant"], 1),
        (["POSITIVE", "NEGATIVE"], 0),
        (["no", "yes"], 1),
        (["1", "0"], 0),
        (["True", "False"], 0),
        (["entailment", "not_entailment"], 0),
        (["not_duplicate", "is_duplicate"], 1),
        (["other", "answer"], 1),
        (["helpful", "not_helpful"], 0),
        (["LABEL_0"], 0),
        (["score"], 0),
    ],
)
def test_the_relevant_label_is_told_by_its_name(names, relevant):
    config = {} if names is None else {"id2label": {str(number): name for number, name in enumerate(names)}}
    assert relevant_label(config, "here") == relevant


def test_label2id_alone_tells_as_well():
    assert relevant_label({"label2id": {"relevant": 0, "irrelevant": 1}}, "here") == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"'a' and 'b', which do not tell the relevant: write \"id2label\""),
        (["relevant", "positive"], "do not tell the relevant"),
        (["contradiction", "neutral"], "do not tell the relevant"),
        (["irrelevant"], "its scores would be inverted"),
        (["contradiction", "entailment", "neutral"], "has 3 labels .contradiction, entailment, neutral"),
    ],
)
def test_labels_that_do_not_tell_are_refused(names, message):
    with pytest.raises(ModelError, match=message):
        relevant_label({"id2label": {str(number): name for number, name in enumerate(names)}}, "here")


def test_scores_are_those_of_the_relevant_label(tokenizers, texts, tmp_path):
    tokenizer, config = tokenizers["bert"], tiny_config("bert", tokenizers["bert"])
    config.id2label = {0: "relevant", 1: "irrelevant"}
    torch.manual_seed(0)
    model = spread_scores(BertForSequenceClassification(config).eval())
    save_checkpoint(model, tokenizer, tmp_path)
    queries, passages = texts[0][:8], texts[1][:8]
    inputs = tokenizer(queries, passages, truncation="only_second", max_length=128, padding=True, return_tensors="pt")
    tokenizer.backend_tokenizer.no_truncation()
    with torch.no_grad():
        logits = model(**inputs).logits
    result = Scorer.load(tmp_path, "torch", "fp32").score_window(queries, passages)
    np.testing.assert_allclose(result.scores, torch.softmax(logits, dim=1)[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.logits, logits[:, 0] - logits[:, 1], rtol=0, atol=1e-4)
