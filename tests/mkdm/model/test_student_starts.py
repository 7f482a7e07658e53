"""A student starts from the first layers of an encoder of any family, and of no decoder."""

import pytest
import torch
from tiny_models import spread_scores
from tiny_teachers import chat_tokenizer, save_classifier, t5_tokenizer, tiny_config
from transformers import AutoModel, AutoModelForSeq2SeqLM

from mkdm.errors import ModelError
from mkdm.model import FAMILIES, MkdmModel, check_fitness, load_checkpoint, save_checkpoint
from mkdm.scoring import Scorer

ENCODERS = [name for name, family in FAMILIES.items() if family.kind == "encoder" and family.layer]
K = 3


def save_encoder(folder, family, tokenizer, layers=4):
    shape = {"num_hidden_layers": layers} | ({"n_layers": layers} if family == "distilbert" else {})
    torch.manual_seed(0)
    spread_scores(AutoModel.from_config(tiny_config(family, tokenizer, **shape))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def layers_of(encoder):
    stack = encoder if hasattr(encoder, "layers") else getattr(encoder, "encoder", None) or encoder.transformer
    return stack.layers if hasattr(stack, "layers") else stack.layer


@pytest.mark.parametrize("family", ENCODERS)
def test_first_layers_and_scores_are_those_of_the_encoder(family, tokenizers, texts, tmp_path):
    tokenizer = tokenizers["bert" if family in ("bert", "deberta-v2", "nomic_bert") else "roberta"]
    save_encoder(tmp_path / "encoder", family, tokenizer)
    start = MkdmModel.from_encoder(tmp_path / "encoder", K, ("a",))
    whole = AutoModel.from_pretrained(tmp_path / "encoder", dtype=torch.float32)
    assert (start.config.num_layers, len(layers_of(start.encoder))) == (K, K)
    for own, theirs in zip(layers_of(start.encoder), layers_of(whole), strict=False):
        torch.testing.assert_close(own.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    save_checkpoint(spread_scores(start).eval(), tokenizer, tmp_path / "student")
    assert check_fitness(tmp_path / "student") == 1
    again = load_checkpoint(tmp_path / "student")[0]
    queries, passages = (
        [text[:40] for text in texts[0][:6]],
        [text[: 20 + 30 * n] for n, text in enumerate(texts[1][:6])],
    )
    expected = []
    with torch.no_grad():
        for query, passage in zip(queries, passages, strict=True):
            inputs = tokenizer(query, passage, truncation="only_second", max_length=96, return_tensors="pt")
            expected.append(again.model(**inputs).score[0])
    tokenizer.backend_tokenizer.no_truncation()
    scores = Scorer.load(tmp_path / "student", "torch", "fp32", max_length=96).score(queries, passages)
    torch.testing.assert_close(torch.from_numpy(scores), torch.stack(expected), rtol=0, atol=1e-5)
    smaller = MkdmModel.from_encoder(tmp_path / "student", 1, ("a",))
    assert len(layers_of(smaller.encoder)) == 1, "a student is a start too"


def test_which_layers_of_modernbert_attend_locally_stays(tokenizers, tmp_path):
    save_encoder(tmp_path, "modernbert", tokenizers["roberta"], layers=7)
    config = MkdmModel.from_encoder(tmp_path, 5).config.encoder_config
    local = "sliding_attention"
    assert config.layer_types == ["full_attention", local, local, "full_attention", local]


@pytest.mark.parametrize("family", ["qwen3", "llama", "t5"])
def test_decoder_is_no_start(family, texts, tmp_path):
    if family == "t5":
        tokenizer = t5_tokenizer(texts[1])
        AutoModelForSeq2SeqLM.from_config(tiny_config("t5", tokenizer)).save_pretrained(tmp_path)
    else:
        save_classifier(tmp_path, family, chat_tokenizer(texts[1]))
    with pytest.raises(ModelError, match=r"is a (encoder-)?decoder, .*: a student starts from an encoder") as told:
        MkdmModel.from_encoder(tmp_path, 1)
    assert "\n" not in str(told.value)


def test_family_that_is_not_known_is_no_start(tokenizers, tmp_path):
    from transformers import FunnelConfig, FunnelModel

    config = FunnelConfig(vocab_size=100, d_model=32, n_head=4, d_head=8, d_inner=48, block_sizes=[1, 1])
    FunnelModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="of the family funnel, which is not supported: take one of bert"):
        MkdmModel.from_encoder(tmp_path, 1)
