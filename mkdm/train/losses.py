"""The losses of the paper: golden cross-entropy (2), soft squared errors (4), and their weighted sum (5).

Yang et al., arXiv 1904.09636. Labels that a pair lacks are masked: they count neither in a sum nor in its mean.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mkdm.train.rows import NO_GOLDEN_LABEL


class Losses(NamedTuple):
    """What a batch costs.

    Attributes:
        total: float32 scalar, (5).
        golden: float32 scalar, l_g of (2); 0 where no pair has a golden label.
        soft: float32[n], l_s,i of (4); 0 for a teacher that has labelled no pair.
    """

    total: Tensor
    golden: Tensor
    soft: Tensor


class LabelCounts(NamedTuple):
    """How many labels the means of (2) and (4) are taken over; of a whole step, where a batch is a part of one.

    Attributes:
        golden: float scalar.
        soft: float[n], by teacher.
    """

    golden: Tensor
    soft: Tensor

    @classmethod
    def of(cls, golden_labels: Tensor, soft_labels: Tensor) -> "LabelCounts":
        """The labels that these pairs have: int[B] with -1 for none, float[B, n] with NaN for none."""
        return cls((golden_labels != NO_GOLDEN_LABEL).sum().float(), (~soft_labels.isnan()).sum(dim=0).float())


def mkdm_losses(
    golden_logits: Tensor,
    soft_logits: Tensor,
    golden_labels: Tensor,
    soft_labels: Tensor,
    alpha: float,
    counts: LabelCounts | None = None,
) -> Losses:
    """The loss (5): (1 − α)·l_g + α·mean_i l_s,i. Without a teacher it is l_g, whatever α.

    The mean over teachers takes those that have labelled a pair.

    Args:
        golden_logits: float[B, 2], W_g h1.
        soft_logits: float[B, n], W_s,i h1.
        golden_labels: int64[B], 0 or 1, and -1 where a pair has none.
        soft_labels: float[B, n], the teachers' probabilities, and NaN where a pair has none.
        counts: what the means are taken over; by default these pairs. With those of a step that is cut into batches,
            the batches' losses add up to the step's.
    """
    counts = counts or LabelCounts.of(golden_labels, soft_labels)
    log_p = F.log_softmax(golden_logits.float(), dim=1)  # of (1)
    has_golden = golden_labels != NO_GOLDEN_LABEL
    chosen = log_p.gather(1, golden_labels.clamp(min=0)[:, None])[:, 0]
    golden = -(chosen * has_golden).sum() / _divisor(counts.golden)  # (2)
    has_soft = ~soft_labels.isnan()
    errors = (torch.sigmoid(soft_logits.float()) - soft_labels.nan_to_num()) ** 2  # (3)
    soft = (errors * has_soft).sum(dim=0) / _divisor(counts.soft)  # (4)
    if soft.numel() == 0:
        return Losses(golden, golden.detach(), soft.detach())
    total = (1 - alpha) * golden + alpha * soft.sum() / _divisor((counts.soft > 0).sum())  # (5)
    return Losses(total, golden.detach(), soft.detach())


def _divisor(count: Tensor) -> Tensor:
    """The count, which may be a fraction where processes share a step; 1 where there is none."""
    return torch.where(count > 0, count, torch.ones_like(count))
