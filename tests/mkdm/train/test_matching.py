import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, tiny_student

from mkdm.errors import ConfigError
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.torch_backend import to_tensors
from mkdm.train.matching import TokenMatcher, query_tokens
from mkdm.train.micro_batches import padded_batch
from mkdm.train.rows import TrainingRows


def training_rows(encoder: PairEncoder, queries: list[str], passages: list[str]) -> TrainingRows:
    """Pairs as a training set holds them."""
    pairs = encoder.encode(queries, passages)
    batch = encoder.batch(pairs, np.arange(len(queries)))
    padding = ((0, 0), (0, encoder.max_length - batch.input_ids.shape[1]))
    return TrainingRows(
        pairs=np.arange(len(queries)),
        input_ids=np.pad(batch.input_ids, padding, constant_values=encoder.template.pad_id).astype(np.int32),
        lengths=pairs.lengths,
        query_lengths=np.array([len(query) for query in pairs.query_ids], dtype=np.int32),
        golden_labels=np.full(len(queries), -1, dtype=np.int8),
        soft_labels=np.zeros((len(queries), 0), dtype=np.float32),
        sources=np.zeros(len(queries), dtype=np.int8),
    )


QUERIES, PASSAGES = ["what is a gasket", "a"], ["a gasket seals", "the a of a long row"]


@pytest.mark.parametrize("family", FAMILIES)
def test_query_tokens_that_occur_in_the_passage(family, tokenizers):
    tokenizer = tokenizers[family]
    encoder = PairEncoder(tokenizer, 64)
    rows = training_rows(encoder, QUERIES, PASSAGES)
    batch = padded_batch(rows, encoder.template)
    is_query, occurs = query_tokens(rows, encoder.template)
    query_ids = tokenizer.encode(QUERIES[0], add_special_tokens=False)
    passage_ids = tokenizer.encode(PASSAGES[0], add_special_tokens=False)
    assert batch.input_ids[0][is_query[0]].tolist() == query_ids
    assert occurs[0][is_query[0]].tolist() == [float(token in passage_ids) for token in query_ids]
    assert occurs[~is_query].sum() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_training_set_are_padded_as_the_scorer_pads_pairs(family, tokenizers):
    encoder = PairEncoder(tokenizers[family], 64)
    batch = padded_batch(training_rows(encoder, QUERIES, PASSAGES), encoder.template)
    expected = encoder.batch(encoder.encode(QUERIES, PASSAGES), np.arange(2))
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))


def test_loss_reads_the_states_before_the_last_layer(tokenizers):
    tokenizer = tokenizers["bert"]
    student, encoder = tiny_student("bert", tokenizer), PairEncoder(tokenizer, 64)
    matcher = TokenMatcher(student)
    rows = training_rows(encoder, QUERIES, PASSAGES)
    tensors = to_tensors(padded_batch(rows, encoder.template), torch.device("cpu"))
    student(**tensors)
    states = student.encoder(**tensors, output_hidden_states=True).hidden_states[-2]
    is_query, occurs = (torch.from_numpy(array) for array in query_tokens(rows, encoder.template))
    logits = matcher.header(states)[..., 0][is_query]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, occurs[is_query])
    torch.testing.assert_close(matcher.loss(is_query, occurs), expected)


def test_one_layer_is_too_few(tokenizers):
    student = tiny_student("bert", tokenizers["bert"])
    student.config.encoder_config.num_hidden_layers = 1
    with pytest.raises(ConfigError, match="two layers or more"):
        TokenMatcher(student)
