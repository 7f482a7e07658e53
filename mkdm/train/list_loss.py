"""A loss beside (5), over the list of a query's passages."""

import torch
from torch import Tensor

from mkdm.train.rows import NO_GOLDEN_LABEL

_LOWEST = 1e-4
"""A teacher's probability is kept this far from 0 and 1 before its logit is taken."""


def list_loss(
    golden_logits: Tensor,
    soft_logits: Tensor,
    golden_labels: Tensor,
    soft_labels: Tensor,
    query: Tensor,
    alpha: float,
) -> Tensor:
    """How far the student's order of each query's passages is from that of its teachers and golden labels: ListNet.

    The cross-entropy between two softmaxes over a query's passages in the batch (Cao et al., Learning to Rank: From
    Pairwise Approach to Listwise Approach, 2007): of the teacher's logits and of the soft header's, mean over teachers,
    with weight α; and of golden labels and the golden header's margin, with weight 1 − α. Each is a mean over queries.

    Args:
        query: int64[B], which pairs share a query, numbered from 0.

    Returns:
        float32 scalar.
    """
    queries = int(query.max()) + 1
    golden = golden_labels == 1
    margin = (golden_logits[:, 1] - golden_logits[:, 0]).float()[:, None]
    margin = margin.masked_fill((golden_labels == NO_GOLDEN_LABEL)[:, None], -1e4)
    per_row = -log_softmax_by(margin, query, queries)[:, 0] * golden
    positives = golden.float().new_zeros(queries).index_add_(0, query, golden.float())
    answered = (positives > 0).sum().clamp(min=1)
    of_golden = (per_row / positives[query].clamp(min=1)).sum() / answered
    if soft_logits.shape[1] == 0:
        return of_golden
    known = ~soft_labels.isnan()
    teacher = torch.logit(soft_labels.nan_to_num(0.5), _LOWEST).masked_fill(~known, -1e4)
    target = log_softmax_by(teacher, query, queries)
    found = log_softmax_by(soft_logits.float().masked_fill(~known, -1e4), query, queries)
    of_soft = (target.exp() * (target - found) * known).sum() / (queries * soft_logits.shape[1])
    return (1 - alpha) * of_golden + alpha * of_soft


def log_softmax_by(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """log softmax of each column over the rows of each group: float[B, n], int64[B] -> float[B, n]."""
    index = group[:, None].expand_as(values)
    top = values.new_full((groups, values.shape[1]), -torch.inf).scatter_reduce(0, index, values.detach(), "amax")
    shifted = values - top[group]
    total = values.new_zeros(groups, values.shape[1]).index_add(0, group, shifted.exp())
    return shifted - total.log()[group]
