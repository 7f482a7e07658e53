import pytest
import torch
from tiny_models import spread_scores
from tiny_teachers import tiny_config
from transformers import AutoModel

from mkdm.scoring.first_only import FirstOnlyLayer, first_only_encoder
from mkdm.scoring.modernbert_encoder import ModernBertEncoder, modernbert_encoder


def encoder_of(family, tokenizer, **more):
    torch.manual_seed(0)
    return spread_scores(AutoModel.from_config(tiny_config(family, tokenizer, num_hidden_layers=3, **more)).eval())


def batch_of(tokenizer):
    """Pairs of which one is far longer than the others, so that padding lies out of reach of a local layer."""
    texts = ["what is a gasket", "how", "what seals a pipe"], ["a seal", "a seal " * 30, "rubber between two"]
    return dict(tokenizer(*texts, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gte", {}),
        ("nomic_bert", {}),
        ("jina_embeddings_v3", {}),
        ("eurobert", {}),
        ("modernbert", {}),
        ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
    ],
)
def test_first_position_is_that_of_the_plain_encoder(family, more, padded, tokenizers):
    tokenizer = tokenizers["roberta"]
    encoder, inputs = encoder_of(family, tokenizer, **more), batch_of(tokenizer)
    if not padded:
        inputs = {name: one[1:2] for name, one in inputs.items()}
    lean = modernbert_encoder(encoder, True) if family == "modernbert" else first_only_encoder(encoder)
    with torch.inference_mode():
        plain = encoder(**inputs).last_hidden_state[:, :1]
        found = lean(**inputs).last_hidden_state
        again = encoder(**inputs).last_hidden_state
    assert plain.std() > 0.1, "states that do not differ would prove nothing"
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-5)
    assert again.shape[1] > 1, "the encoder itself stays as it is"


def test_modernbert_gives_all_positions_where_they_are_read(tokenizers):
    encoder, inputs = encoder_of("modernbert", tokenizers["roberta"]), batch_of(tokenizers["roberta"])
    lean = modernbert_encoder(encoder, False)
    assert isinstance(lean, ModernBertEncoder)
    real = inputs["attention_mask"].bool()
    with torch.inference_mode():
        plain, found = (one(**inputs).last_hidden_state for one in (encoder, lean))
    torch.testing.assert_close(found[real], plain[real], rtol=0, atol=2e-5)
    assert found.isfinite().all()


def test_shared_keys_and_other_families_are_left_alone(tokenizers):
    assert first_only_encoder(encoder_of("eurobert", tokenizers["roberta"], num_key_value_heads=2)) is None
    assert first_only_encoder(encoder_of("bert", tokenizers["roberta"])) is None
    lean = first_only_encoder(encoder_of("gte", tokenizers["roberta"]))
    assert isinstance(lean.layers[-1], FirstOnlyLayer)
