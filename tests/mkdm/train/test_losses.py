"""The equations of the paper against values worked by hand."""

from math import log

import pytest
import torch

from mkdm.model.student import output_score
from mkdm.train.losses import LabelCounts, mkdm_losses

# Logits whose softmax and sigmoid are round numbers: softmax([0, ln 3]) = [1/4, 3/4], sigmoid(ln 3) = 3/4.
LN3 = log(3)
GOLDEN_LOGITS = torch.tensor([[0.0, LN3], [0.0, 0.0], [LN3, 0.0]])  # P(1) = 3/4, 1/2, 1/4
SOFT_LOGITS = torch.tensor([[LN3, 0.0, 0.0], [0.0, LN3, 0.0], [-LN3, 0.0, 0.0]])  # R_1 = 3/4, 1/2, 1/4 …
GOLDEN = torch.tensor([1, 0, 0])
SOFT = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.25, 0.5], [0.25, 0.0, 1.0]])
NAN = float("nan")
L_GOLDEN = -(log(3 / 4) + log(1 / 2) + log(3 / 4)) / 3
L_SOFT = [(1 / 16 + 0 + 0) / 3, (0 + 1 / 4 + 1 / 4) / 3, (1 / 4 + 0 + 1 / 4) / 3]


def loss(teachers: int, alpha: float, golden=GOLDEN, soft=SOFT):
    return mkdm_losses(GOLDEN_LOGITS, SOFT_LOGITS[:, :teachers], golden, soft[:, :teachers], alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("teachers", [0, 1, 3])
def test_loss_5_by_hand(teachers, alpha):
    losses = loss(teachers, alpha)
    soft = sum(L_SOFT[:teachers]) / max(1, teachers)
    expected = (1 - alpha) * L_GOLDEN + alpha * soft if teachers else L_GOLDEN
    assert losses.total.item() == pytest.approx(expected, rel=1e-6)
    assert losses.golden.item() == pytest.approx(L_GOLDEN, rel=1e-6)
    assert losses.soft.tolist() == pytest.approx(L_SOFT[:teachers], rel=1e-6)


def test_missing_labels_count_nowhere():
    golden = torch.tensor([1, -1, 0])
    soft = torch.tensor([[NAN, 0.5, NAN], [0.5, NAN, NAN], [0.5, 0.0, NAN]])
    losses = loss(3, 0.9, golden, soft)
    l_golden = -(log(3 / 4) + log(3 / 4)) / 2
    l_soft = [(0 + 1 / 16) / 2, (0 + 1 / 4) / 2, 0.0]
    assert losses.golden.item() == pytest.approx(l_golden, rel=1e-6)
    assert losses.soft.tolist() == pytest.approx(l_soft, rel=1e-6)
    assert losses.total.item() == pytest.approx(0.1 * l_golden + 0.9 * (l_soft[0] + l_soft[1]) / 2, rel=1e-6)


def test_batch_without_golden_labels_leaves_the_golden_header_alone():
    header = GOLDEN_LOGITS.clone().requires_grad_()
    losses = mkdm_losses(header, SOFT_LOGITS, torch.tensor([-1, -1, -1]), SOFT, 0.9)
    losses.total.backward()
    assert losses.golden.item() == 0
    assert header.grad.abs().sum() == 0


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_batches_of_a_step_add_up_to_it(alpha):
    golden, soft = torch.tensor([1, -1, 0]), torch.tensor([[NAN, 0.5, NAN], [0.5, NAN, NAN], [0.5, 0.0, NAN]])
    counts = LabelCounts.of(golden, soft)
    rows = [slice(0, 1), slice(1, 3)]
    parts = [
        mkdm_losses(GOLDEN_LOGITS[row], SOFT_LOGITS[row], golden[row], soft[row], alpha, counts).total for row in rows
    ]
    torch.testing.assert_close(sum(parts), loss(3, alpha, golden, soft).total)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("teachers", [0, 1, 3])
def test_gradients_are_the_numerical_ones(teachers, alpha):
    torch.manual_seed(0)
    golden_logits = torch.randn(4, 2, requires_grad=True)
    soft_logits = torch.randn(4, teachers, requires_grad=True)
    golden, soft = torch.tensor([1, -1, 0, 0]), torch.rand(4, teachers)
    soft[1:3] = NAN

    def total(golden_in, soft_in):
        return mkdm_losses(golden_in, soft_in, golden, soft, alpha).total

    total(golden_logits, soft_logits).backward()
    for logits in (golden_logits, soft_logits):
        for index in torch.cartesian_prod(torch.arange(4), torch.arange(logits.shape[1])).tolist():
            both = []
            for sign in (1, -1):
                moved = logits.detach().clone()
                moved[tuple(index)] += sign * 1e-2
                inputs = (moved, soft_logits) if logits is golden_logits else (golden_logits, moved)
                both.append(total(*inputs).item())
            slope = (both[0] - both[1]) / 2e-2
            gradient = 0.0 if logits.grad is None else logits.grad[tuple(index)].item()
            assert gradient == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize(
    ("teachers", "alpha", "expected"),
    [
        (0, 0.9, [3 / 4, 1 / 2, 1 / 4]),
        (1, 0.0, [3 / 4, 1 / 2, 1 / 4]),
        (1, 1.0, [3 / 4, 1 / 2, 1 / 4]),
        (3, 0.9, [(3 / 4 + 3 / 4 + 1 / 2 + 1 / 2) / 4, (1 / 2 + 1 / 2 + 3 / 4 + 1 / 2) / 4, 6 / 4 / 4]),
        (3, 1.0, [(3 / 4 + 1 / 2 + 1 / 2) / 3, (1 / 2 + 3 / 4 + 1 / 2) / 3, (1 / 4 + 1 / 2 + 1 / 2) / 3]),
    ],
)
def test_output_6_by_hand(teachers, alpha, expected):
    assert output_score(GOLDEN_LOGITS, SOFT_LOGITS[:, :teachers], alpha).tolist() == pytest.approx(expected, rel=1e-6)


def test_a_teacher_without_labels_counts_not_at_all():
    soft = SOFT.clone()
    soft[:, 2] = NAN
    found = mkdm_losses(GOLDEN_LOGITS, SOFT_LOGITS, GOLDEN, soft, 0.9)
    expected = 0.1 * L_GOLDEN + 0.9 * (L_SOFT[0] + L_SOFT[1]) / 2
    assert found.total.item() == pytest.approx(expected, abs=1e-6)
