"""The families of models that work here, by `model_type`: what their weights are called and how they are read.

Each is proven against plain transformers in tests/mkdm/model/test_families.py, from which README's list is checked.
Needs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mkdm.errors import ModelError

Kind = Literal["encoder", "decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Family:
    """What is common to the models of a family.

    Attributes:
        title: what people call it.
        prefix: of the encoder's weights in a classifier.
        header: weights of a classifier's header, its last one last.
        kind: a decoder is read at its last token, an encoder-decoder at the first token that it answers.
        words: the embeddings of its tokens.
        layer: what numbers a layer in the names of weights; "" where all layers share weights.
        types: whether its encoder takes token types; "ignored" where it does and has no embeddings for them.
        former_prefixes: of weights that transformers renames as it loads them.
        ported: whether transformers has what was the models' own code at first, which their config may still name.
        after_padding: whether its table of positions begins after the padding index.
    """

    title: str
    prefix: str
    header: tuple[str, ...]
    kind: Kind = "encoder"
    words: str = "embeddings.word_embeddings.weight"
    layer: str = "layer"
    types: Literal["taken", "ignored", "refused"] = "taken"
    former_prefixes: tuple[str, ...] = ()
    ported: bool = False
    after_padding: bool = False


_PLAIN = ("classifier.weight",)
_DENSE = ("classifier.dense.weight", "classifier.out_proj.weight")
_POOLED = ("pooler.dense.weight", "classifier.weight")


def _roberta(title: str, prefix: str = "roberta") -> Family:
    return Family(title, prefix, _DENSE, after_padding=True)


def _rotary(title: str, prefix: str, header: tuple[str, ...], **more: Any) -> Family:
    return Family(title, prefix, header, **{"layer": "layers"} | more)


def _decoder(title: str) -> Family:
    words = "embed_tokens.weight"
    return _rotary(title, "model", ("score.weight",), kind="decoder", words=words, types="refused")


def _t5(title: str) -> Family:
    return Family(title, "", (), kind="encoder-decoder", words="shared.weight", layer="block", types="refused")


FAMILIES: dict[str, Family] = {
    "bert": Family("BERT", "bert", _PLAIN),
    "roberta": _roberta("RoBERTa"),
    "xlm-roberta": _roberta("XLM-R"),
    "camembert": _roberta("CamemBERT"),
    "electra": Family("ELECTRA", "electra", _DENSE),
    "distilbert": Family("DistilBERT", "distilbert", ("pre_classifier.weight", "classifier.weight"), types="refused"),
    "mpnet": Family("MPNet", "mpnet", _DENSE, types="refused", after_padding=True),
    "albert": Family("ALBERT", "albert", _PLAIN, layer=""),
    "deberta-v2": Family("DeBERTa-v2 and v3", "deberta", _POOLED, types="ignored"),
    "modernbert": _rotary(
        "ModernBERT",
        "model",
        ("head.dense.weight", "classifier.weight"),
        words="embeddings.tok_embeddings.weight",
        types="refused",
    ),
    "gte": _rotary("GTE", "gte", _PLAIN, types="ignored", layer="layers?", former_prefixes=("new",), ported=True),
    "nomic_bert": _rotary("NomicBERT", "nomic_bert", _PLAIN, ported=True),
    "eurobert": _rotary(
        "EuroBERT",
        "model",
        ("dense.weight", "classifier.weight"),
        words="embed_tokens.weight",
        types="refused",
        ported=True,
    ),
    "jina_embeddings_v3": _rotary("Jina v3", "roberta", _DENSE, ported=True),
    "ernie": Family("ERNIE", "ernie", _PLAIN),
    "xlm-roberta-xl": _roberta("XLM-R XL"),
    "megatron-bert": Family("Megatron-BERT", "bert", _PLAIN),
    "roberta-prelayernorm": _roberta("RoBERTa-PreLayerNorm", "roberta_prelayernorm"),
    "data2vec-text": _roberta("Data2Vec", "data2vec_text"),
    "xmod": _roberta("X-MOD"),
    "rembert": Family("RemBERT", "rembert", _PLAIN),
    "mobilebert": Family("MobileBERT", "mobilebert", _PLAIN),
    "qwen3": _decoder("Qwen3"),
    "qwen2": _decoder("Qwen2"),
    "llama": _decoder("Llama"),
    "mistral": _decoder("Mistral"),
    "gemma": _decoder("Gemma"),
    "t5": _t5("MonoT5"),
    "mt5": _t5("mMonoT5 (mT5)"),
}

_T5_POSITIONS = 512


def family_of(config: Mapping[str, Any], folder: object) -> Family:
    """The family of a model with that config.json.

    Args:
        folder: named in errors.

    Raises:
        ModelError: it is none that works here; the text lists those that do.
    """
    name = config.get("model_type")
    if name not in FAMILIES:
        raise ModelError(f"{folder} is of the family {name}, which is not supported: take one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model takes, as its config.json tells; None where it tells none."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is not None and family.kind == "encoder-decoder":
        return int(config.get("n_positions") or _T5_POSITIONS)
    positions = config.get("max_position_embeddings")
    if positions is None or family is None or not family.after_padding:
        return None if positions is None else int(positions)
    padding = config.get("pad_token_id")
    return int(positions) - (1 if padding is None else int(padding)) - 1


def usable_positions(encoder: Any) -> int:
    """How many tokens an encoder takes: rows of its table of positions after the padding index, else as configured."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if table is None:
        return positions_of(encoder.config.to_dict()) or _T5_POSITIONS
    return int(table.num_embeddings) - (0 if table.padding_idx is None else table.padding_idx + 1)
