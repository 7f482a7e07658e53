import pytest
from transformers import BertConfig, ElectraConfig

from mkdm.benchmark.bert_config import bert_config
from mkdm.errors import ModelError
from mkdm.model import MkdmConfig, MkdmModel

SHAPE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}


def test_config_is_a_copy():
    student = MkdmModel(MkdmConfig(encoder_config=BertConfig(**SHAPE), teacher_ids=("t",)))
    bert_config(student, "").hidden_size = 16
    assert student.config.encoder_config.hidden_size == 8


def test_other_encoders_are_told_by_name():
    student = MkdmModel(MkdmConfig(encoder_config=ElectraConfig(**SHAPE), teacher_ids=("t",)))
    with pytest.raises(ModelError, match="encoder is ElectraConfig; only BERT will do"):
        bert_config(student, "only BERT will do")
