import numpy as np
import pytest
from tiny_models import tiny_student

from mkdm.errors import ModelError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.folder import models_version
from mkdm.scoring.ensemble import Ensemble, load_scorer
from mkdm.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def students(tmp_path_factory, tokenizers, student_folder) -> list[str]:
    folder = tmp_path_factory.mktemp("ensemble") / "roberta"
    save_checkpoint(tiny_student("roberta", tokenizers["roberta"], ("bge",), 1.0), tokenizers["roberta"], folder)
    return [student_folder, str(folder)]


def test_score_is_the_mean_of_the_students_scores(students, texts):
    ensemble = load_scorer(",".join(students), precision="fp32")
    each = [Scorer.load(folder, precision="fp32").score(*texts) for folder in students]
    assert isinstance(ensemble, Ensemble)
    assert np.abs(each[0] - each[1]).max() > 0.1
    np.testing.assert_allclose(ensemble.score(*texts), (each[0] + each[1]) / 2, atol=1e-6)
    assert ensemble.model_version == models_version(", ".join(reversed(students)))
    assert ensemble.model_version not in {member.model_version for member in ensemble.members}


def test_pair_that_one_student_cannot_score_has_none(students):
    ensemble = load_scorer(",".join(students), precision="fp32")
    ensemble.members[1].backend.score = None  # raises for every batch
    result = ensemble.score_window(["a", ""], ["a seal", "a seal"])
    assert np.isnan(result.scores).all()
    assert [str(result.errors[row].code) for row in (0, 1)] == ["model_error", "empty_query"]


@pytest.mark.parametrize(("models", "message"), [("a,", "names an empty folder"), ("a, a", "names a folder twice")])
def test_folders_of_an_ensemble(models, message):
    with pytest.raises(ModelError, match=message):
        load_scorer(models)
