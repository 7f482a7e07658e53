"""Hidden-state hints: the student's h1 is pulled towards a teacher's [CLS] state."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mkdm.model import MkdmModel


class Hints(nn.Module):
    """Pulls h1 towards the [CLS] state of a teacher, through a matrix that is thrown away afterwards (FitNets, 2015).

    Args:
        folder: the teacher.

    Raises:
        ModelError: the teacher does not load.
    """

    def __init__(self, student: MkdmModel, folder: str) -> None:
        super().__init__()
        teacher = MkdmModel.from_encoder(folder, None).to(student.device).eval().requires_grad_(False)  # type: ignore[arg-type]
        self._teacher = [teacher]  # in a list: not part of what is trained and saved
        size = teacher.config.encoder_config.hidden_size
        self.matrix = nn.Linear(student.golden_header.in_features, size).to(student.device)
        self._h1: Tensor | None = None
        student.dropout.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._h1 = inputs[0]

    def loss(self, inputs: dict[str, Tensor]) -> Tensor:
        """1 − cosine between the two states, mean over the batch that the student has just seen."""
        assert self._h1 is not None
        with torch.no_grad():
            goal = self._teacher[0].encoder(**inputs).last_hidden_state[:, 0]
        return (1 - F.cosine_similarity(self.matrix(self._h1).float(), goal.float())).mean()
