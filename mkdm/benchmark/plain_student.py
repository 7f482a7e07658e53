"""A student as plain transformers knows it, a `BertForSequenceClassification` of the same weights: for the peers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertForSequenceClassification

from mkdm.benchmark.bert_config import bert_config
from mkdm.model import MkdmModel, load_tokenizer, output_score
from mkdm.quiet import quiet_transformers
from mkdm.scoring import DTYPES

POOLER_SCALE = 2.0**-13
"""The plain model's pooler is tanh of this × h1: so small that tanh leaves it as it is, to 1e-7 of it."""
BATCH_SIZE = 32
"""Pairs of a peer's batch: the default of CrossEncoder.predict."""

Scorer = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]


def save_plain(student: MkdmModel, tokenizer: Any, folder: str | Path) -> None:
    """Write the student as a plain model: its logits are the golden header's two, then one per soft header.

    Plain BERT puts a pooler before the header, which our students lack; here it does nothing but scale.

    Raises:
        ModelError: the encoder is no BERT.
    """
    config = bert_config(student, "the peers are measured with BERT students")
    config.num_labels = 2 + student.config.num_teachers
    config.mkdm_alpha = student.config.alpha
    plain = BertForSequenceClassification(config).eval()
    plain.bert.load_state_dict(student.encoder.state_dict(), strict=False)  # all but the pooler
    headers: list[nn.Linear] = [student.golden_header, *([student.soft_headers] if student.soft_headers else [])]
    with torch.no_grad():
        plain.bert.pooler.dense.weight.copy_(torch.eye(config.hidden_size) * POOLER_SCALE)
        plain.bert.pooler.dense.bias.zero_()
        plain.classifier.weight.copy_(torch.cat([header.weight for header in headers]) / POOLER_SCALE)
        plain.classifier.bias.copy_(torch.cat([header.bias for header in headers]))
    tokenizer.model_max_length = student.config.max_length
    with quiet_transformers():
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def scores_of(logits: Tensor, alpha: float) -> NDArray[np.float32]:
    """The plain model's logits, float[B, 2 + n], to scores by (6), float32[B]."""
    result: NDArray[np.float32] = output_score(logits[:, :2], logits[:, 2:], alpha).float().cpu().numpy()
    return result


def plain_alpha(folder: str | Path) -> float:
    """The α of a plain folder's student."""
    return float(AutoConfig.from_pretrained(folder, local_files_only=True).mkdm_alpha)


class PlainScorer:
    """What a good user of plain transformers writes: tokenise a batch, pad to its longest, run, in inference mode.

    Args:
        folder: written by `save_plain`.
        precision: fp32, bf16 or fp16, as the weights are loaded.
    """

    def __init__(self, folder: str | Path, precision: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        with quiet_transformers():
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=DTYPES[precision], local_files_only=True, use_safetensors=True
            )
        self.model = model.to(self.device).eval()
        self.alpha = float(self.model.config.mkdm_alpha)
        self.tokenizer = load_tokenizer(folder)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> dict[str, Tensor]:
        """The padded inputs of B pairs, int64[B, L] each; the passage is cut to fit."""
        return dict(self.tokenizer(list(queries), list(passages), **_CUT).to(self.device))

    @torch.inference_mode()
    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Score one batch of pairs, float32[B]."""
        return scores_of(self.model(**self.encode(queries, passages)).logits, self.alpha)


_CUT: dict[str, Any] = {"truncation": "only_second", "padding": True, "return_tensors": "pt"}


def in_sorted_batches(score: Scorer) -> Scorer:
    """A scorer of any number of pairs, by batches of like length, longest first, order restored."""

    def score_all(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        order = np.argsort([-len(query) - len(passage) for query, passage in zip(queries, passages, strict=True)])
        scores = np.zeros(len(order), dtype=np.float32)
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            scores[rows] = score([queries[row] for row in rows], [passages[row] for row in rows])
        return scores

    return score_all
