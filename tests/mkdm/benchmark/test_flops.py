import numpy as np
import pytest
from transformers import BertConfig

from mkdm.benchmark.flops import lean_cost, pair_gflop


def test_bert_base_layer_by_hand():
    shape = BertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=1)
    # 24 · 100 · 768² = 1,415,577,600 and 4 · 100² · 768 = 30,720,000
    assert pair_gflop(shape, np.array([100], dtype=np.int32)) == pytest.approx(1.4462976)


def test_mean_over_pairs_and_sum_over_layers():
    shape = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3)
    # a layer: 2 · (4·64 + 2·128) · L + 32 · L² = 1,024·L + 32·L²; of 10 and 20 tokens: 13,440 and 33,280
    assert pair_gflop(shape, np.array([10, 20], dtype=np.int32)) == pytest.approx(3 * (13440 + 33280) / 2 / 1e9)


def test_separate_layers_read_each_text_once():
    shape = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3)
    # two pairs of one query of 4 tokens: two layers of 13,440 and 33,280; one of its 3 texts: 4,608, 7,296, 24,576
    found = pair_gflop(shape, np.array([10, 20]), 1, np.array([4, 6, 16]))
    assert found == pytest.approx((2 * (13440 + 33280) + 4608 + 7296 + 24576) / 2 / 1e9)


@pytest.mark.parametrize(
    ("layers", "separate", "pair"), [(3, 0, 21), (3, 1, 9), (4, 2, 9), (6, 4, 9), (12, 10, 9), (12, 9, 21), (1, 0, 0)]
)
def test_cost_of_the_lean_encoder(layers, separate, pair):
    assert lean_cost(layers, separate) == {"text_h2": 12 * separate, "pair_h2": pair}
