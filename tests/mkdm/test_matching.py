import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, tiny_student

from mkdm.encoding import PairEncoder
from mkdm.errors import ConfigError
from mkdm.matching import TokenMatcher, query_tokens
from mkdm.torch_backend import to_tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_query_tokens_that_occur_in_the_passage(family, tokenizers):
    tokenizer = tokenizers[family]
    encoder = PairEncoder(tokenizer, 64)
    query, passage = "what is a gasket", "a gasket seals"
    batch = encoder.batch(encoder.encode([query, "a"], [passage, "the a of a long row"]), np.arange(2))
    is_query, occurs = query_tokens(batch, encoder)
    query_ids = tokenizer.encode(query, add_special_tokens=False)
    passage_ids = tokenizer.encode(passage, add_special_tokens=False)
    assert batch.input_ids[0][is_query[0]].tolist() == query_ids
    assert occurs[0][is_query[0]].tolist() == [float(token in passage_ids) for token in query_ids]
    assert occurs[~is_query].sum() == 0


def test_loss_reads_the_states_before_the_last_layer(tokenizers):
    tokenizer = tokenizers["bert"]
    student, encoder = tiny_student("bert", tokenizer), PairEncoder(tokenizer, 64)
    matcher = TokenMatcher(student, encoder)
    batch = encoder.batch(encoder.encode(["what is a gasket"], ["a gasket seals"]), np.arange(1))
    tensors = to_tensors(batch, torch.device("cpu"))
    student(**tensors)
    states = student.encoder(**tensors, output_hidden_states=True).hidden_states[-2]
    is_query, occurs = (torch.from_numpy(array) for array in query_tokens(batch, encoder))
    logits = matcher.header(states)[..., 0][is_query]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, occurs[is_query])
    torch.testing.assert_close(matcher.loss(batch), expected)


def test_one_layer_is_too_few(tokenizers, tmp_path):
    student = tiny_student("bert", tokenizers["bert"])
    student.config.encoder_config.num_hidden_layers = 1
    with pytest.raises(ConfigError, match="two layers or more"):
        TokenMatcher(student, PairEncoder(tokenizers["bert"], 64))
