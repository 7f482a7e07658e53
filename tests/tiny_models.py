"""Tiny tokenizers and models of each family, made on the spot."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from mkdm.model.lexical import Lexical
from mkdm.model.student import MkdmConfig, MkdmModel

SAMPLE = Path(__file__).parent / "sample"
FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}


def wordpiece(corpus: list[str], inputs: list[str] | None = None) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    rust = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special))
    rust.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=inputs or ["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_level(corpus: list[str]) -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=alphabet)
    )
    rust.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _roberta_like(rust)


def unigram(corpus: list[str]) -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    rust = Tokenizer(models.Unigram())
    rust.normalizer = normalizers.NFKC()
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token="<unk>")
    rust.train_from_iterator(corpus, trainer)
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _roberta_like(rust)


def _roberta_like(rust: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_config(family: str, tokenizer: PreTrainedTokenizerFast):
    """The config of a 4-layer encoder of that family, with positions for 128 tokens."""
    shape = _SHAPE | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if family == "bert":
        return BertConfig(**shape, max_position_embeddings=128)
    if family == "electra":
        return ElectraConfig(**shape, embedding_size=16, max_position_embeddings=128)
    if family == "distilbert":
        shape = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        return DistilBertConfig(**shape, dim=32, n_layers=4, n_heads=4, hidden_dim=64, max_position_embeddings=128)
    kind = RobertaConfig if family == "roberta" else XLMRobertaConfig
    return kind(**shape, max_position_embeddings=130, type_vocab_size=1)


def tiny_student(
    family: str, tokenizer, teacher_ids: tuple[str, ...] = (), alpha: float = 0.9, seed: int = 0, tokens: int = 128
) -> MkdmModel:
    """A random 4-layer student whose scores differ from pair to pair; a BERT may have more tokens."""
    torch.manual_seed(seed)
    encoder = tiny_config(family, tokenizer)
    encoder.max_position_embeddings = max(encoder.max_position_embeddings, tokens)
    config = MkdmConfig(encoder_config=encoder, teacher_ids=teacher_ids, alpha=alpha, max_length=tokens)
    return spread_scores(MkdmModel(config).eval())


def separate_student(
    family: str, tokenizer, layers: int, separate: int, tokens: int, place: int = 20, seed: int = 0
) -> MkdmModel:
    """A random student with two soft headers, whose first layers read query and passage apart."""
    torch.manual_seed(seed)
    encoder = tiny_config(family, tokenizer)
    encoder.num_hidden_layers = layers
    config = MkdmConfig(
        encoder_config=encoder,
        teacher_ids=("bge", "e5"),
        max_length=tokens,
        separate_layers=separate,
        passage_position=place,
        separator_id=tokenizer.sep_token_id,
    )
    return spread_scores(MkdmModel(config).eval())


def lexical_part(tokenizer) -> Lexical:
    """Some weights of tokens, as they come back from fp16."""
    table = np.random.default_rng(1).uniform(0.5, 8, len(tokenizer)).astype(np.float16).astype(np.float32)
    return Lexical(0.8, -1.25, 20.0, tokenizer.sep_token_id, table)


def spread_scores(model, factor=5.0):
    """Scale a random model's weights so that its scores differ from pair to pair."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model
