"""The MLflow model of a student or teacher, as code: MLflow runs this file where the model is loaded or served.

It scores a frame with the columns query and passage. `mkdm score` never runs it, and takes the folder beside it alone.
"""

import os
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from mkdm.columns import PASSAGE, QUERY, SCORE
from mkdm.scoring import Scorer


class PairScorerModel(PythonModel):
    """query (string), passage (string) -> score (float32); null where a pair cannot be scored."""

    def load_context(self, context: Any) -> None:
        """Load the model; with as many threads as the environment leaves it, which Spark tells its workers."""
        threads = os.environ.get("OMP_NUM_THREADS")
        self.scorer = Scorer.load(context.artifacts["model"], threads=int(threads) if threads else None)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The score of each row, in the order of the frame and with its index."""
        scores = np.zeros(len(model_input), dtype=np.float32)
        texts = [model_input[name].astype(object) for name in (QUERY, PASSAGE)]
        columns = [[one if isinstance(one, str) else None for one in column] for column in texts]
        for start in range(0, len(scores), self.scorer.window):
            part = slice(start, start + self.scorer.window)
            scores[part] = self.scorer.score_window(columns[0][part], columns[1][part]).scores
        return pd.DataFrame({SCORE: scores}, index=model_input.index)


set_model(PairScorerModel())
