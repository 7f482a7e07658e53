"""Tiny teachers of every family that works, saved with random weights, and what plain transformers says of pairs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tiny_models import spread_scores
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SHAPE |= {"max_position_embeddings": 130, "hidden_dropout_prob": 0.0}
MORE = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "xmod": {"languages": ("en_XX",), "default_language": "en_XX"},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "deberta-v2 with a convolution": {"conv_kernel_size": 3, "conv_act": "gelu", "type_vocab_size": 2},
    "modernbert": {"num_hidden_layers": 4, "local_attention": 16},
    "gte": {"type_vocab_size": 0},
    "qwen3": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
}
NO_TYPES = {"model_input_names": ["input_ids", "attention_mask"]}


def tiny_config(family: str, tokenizer: PreTrainedTokenizerFast, **more):
    """The config of a tiny model of that family, for that tokenizer."""
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    ids |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family in ("t5", "mt5"):
        shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "n_positions": 128}
        return AutoConfig.for_model(family, **ids, **shape | more, decoder_start_token_id=tokenizer.pad_token_id)
    return AutoConfig.for_model(family, **ids, **SHAPE | MORE.get(family, {}) | more)


def save_classifier(folder: Path, family: str, tokenizer: PreTrainedTokenizerFast, **more):
    """A classifier with one label."""
    model = _random(AutoModelForSequenceClassification, tiny_config(family, tokenizer, num_labels=1, **more))
    return _saved(model, tokenizer, folder)


def save_generator(folder: Path, family: str, tokenizer: PreTrainedTokenizerFast, **more):
    """A model that answers in words."""
    auto = AutoModelForSeq2SeqLM if family in ("t5", "mt5") else AutoModelForCausalLM
    return _saved(_random(auto, tiny_config(family, tokenizer, **more)), tokenizer, folder)


def _random(auto, config):
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    if config.is_encoder_decoder:  # T5's weights are large as they are
        return model
    return spread_scores(model, 5 * (SHAPE["hidden_size"] / config.hidden_size) ** 0.5)  # or wide ones are chaotic


def _saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@torch.no_grad()
def plain_scores(queries: list[str], passages: list[str], logit: Callable[[str, str], torch.Tensor]) -> np.ndarray:
    """float32[n]: the sigmoid of what transformers says of each pair alone, unpadded."""
    logits = [logit(query, passage).reshape(()) for query, passage in zip(queries, passages, strict=True)]
    return torch.sigmoid(torch.stack(logits)).numpy()


def chat_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that parts words as Qwen's does, with its control tokens, `yes` and `no`."""
    rust = Tokenizer(models.BPE())
    rust.normalizer = normalizers.NFC()
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(
        [*corpus, *["yes\nno\nYes\nNo\n?\n.\n"] * 500], trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet)
    )
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    rust.add_special_tokens([AddedToken(word, normalized=False) for word in control])
    rust.add_tokens([AddedToken(word, normalized=False) for word in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left", **NO_TYPES
    )


def llama_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that begins each text with a control token, as that of Llama 3 does; it has no padding."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(
        [*corpus, *["Yes\nNo"] * 500],
        trainers.BpeTrainer(vocab_size=1500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet),
    )
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="</s>", **NO_TYPES)


def t5_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer as T5's, which ends each text with </s>."""
    rust = Tokenizer(models.Unigram())
    rust.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token="<unk>")
    rust.train_from_iterator(corpus, trainer)
    content = json.loads(rust.to_str())
    content["model"]["vocab"] += [[f"\u2581{word}", -5.0] for word in ("true", "false", "yes", "no")]
    rust = Tokenizer.from_str(json.dumps(content))
    rust.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", **NO_TYPES
    )
