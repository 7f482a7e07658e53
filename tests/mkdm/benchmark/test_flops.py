import numpy as np
import pytest
from transformers import BertConfig

from mkdm.benchmark.flops import pair_gflop


def test_bert_base_layer_by_hand():
    shape = BertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=1)
    # 24 · 100 · 768² = 1,415,577,600 and 4 · 100² · 768 = 30,720,000
    assert pair_gflop(shape, np.array([100], dtype=np.int32)) == pytest.approx(1.4462976)


def test_mean_over_pairs_and_sum_over_layers():
    shape = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3)
    # a layer: 2 · (4·64 + 2·128) · L + 32 · L² = 1,024·L + 32·L²; of 10 and 20 tokens: 13,440 and 33,280
    assert pair_gflop(shape, np.array([10, 20], dtype=np.int32)) == pytest.approx(3 * (13440 + 33280) / 2 / 1e9)
