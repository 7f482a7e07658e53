import pytest
import torch
from tiny_models import FAMILIES, tiny_config, tiny_student
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, BertConfig, BertModel, ConvBertConfig, ConvBertModel, GPT2Config, GPT2Model

from mkdm.scoring import lean_encoder
from mkdm.scoring.lean_encoder import LeanEncoder
from mkdm.scoring.lean_encoder import lean_encoder as make


def batch_of(tokenizer) -> dict[str, torch.Tensor]:
    """Three real pairs of different lengths, padded."""
    queries, passages = (
        ["what is a gasket", "how", "what seals a pipe"],
        ["a seal", "a seal " * 9, "rubber between two"],
    )
    return dict(tokenizer(queries, passages, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_first_position_is_that_of_the_plain_encoder(family, layers, tokenizers):
    encoder = tiny_student(family, tokenizers[family]).encoder
    stack = encoder.encoder if hasattr(encoder, "encoder") else encoder.transformer
    stack.layer = stack.layer[:layers]
    inputs = batch_of(tokenizers[family])
    with torch.inference_mode():
        plain = encoder(**inputs).last_hidden_state[:, :1]
    lean = make(encoder)
    with torch.inference_mode():
        found = lean(**inputs).last_hidden_state
    assert plain.std() > 0.1, "states that do not differ would prove nothing"
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-5)
    assert (lean.lookup is not None) == (family in ("bert", "distilbert") and layers > 1)


def test_pooler_is_kept(tokenizers):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(tiny_config("bert", tokenizers["bert"])).eval()
    inputs = batch_of(tokenizers["bert"])
    lean = make(encoder)
    with torch.inference_mode():
        torch.testing.assert_close(lean(**inputs).pooler_output, encoder(**inputs).pooler_output, rtol=0, atol=1e-5)


def test_vocabulary_too_large_for_tables_is_computed(tokenizers, monkeypatch):
    monkeypatch.setattr(lean_encoder, "LOOKUP_BYTES", 1000)
    encoder = tiny_student("bert", tokenizers["bert"]).encoder
    inputs = batch_of(tokenizers["bert"])
    lean = make(encoder)
    assert lean.lookup is None
    with torch.inference_mode():
        plain = encoder(**inputs).last_hidden_state[:, :1]
        torch.testing.assert_close(lean(**inputs).last_hidden_state, plain, rtol=0, atol=2e-5)


def test_rounded_tables_move_the_state_little(tokenizers):
    lean = make(tiny_student("bert", tokenizers["bert"]).encoder)
    inputs = batch_of(tokenizers["bert"])
    with torch.inference_mode():
        exact = lean(**inputs).last_hidden_state
        lean.lookup.round_tables()
        rounded = lean(**inputs).last_hidden_state
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.2


def test_other_architectures_are_left_alone():
    assert make(GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50))) is None
    # has the names of BERT's parts, but narrower heads
    convolution = ConvBertConfig(
        vocab_size=50, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    assert make(ConvBertModel(convolution)) is None


def test_three_layers_cost_what_the_docstring_says():
    """42·H² of 72·H² a token, besides attention and what is done once per pair."""
    hidden, length = 256, 512
    config = BertConfig(hidden_size=hidden, num_hidden_layers=3, num_attention_heads=4, intermediate_size=4 * hidden)
    encoder = BertModel(config, add_pooling_layer=False).eval()
    lean = make(encoder)
    inputs = {"input_ids": torch.randint(5, 100, (1, length))}
    counts = {}
    for name, module in (("plain", encoder), ("lean", lean)):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            module(**inputs)
        flops = counter.get_flop_counts()["Global"]
        attention = sum(flops for op, flops in flops.items() if "attention" in str(op) or "bmm" in str(op))
        counts[name] = (sum(flops.values()) - attention) / (length * hidden**2)
    assert counts["plain"] == pytest.approx(72, rel=0.01)
    assert counts["lean"] == pytest.approx(42, rel=0.01)
    assert isinstance(lean, LeanEncoder)
