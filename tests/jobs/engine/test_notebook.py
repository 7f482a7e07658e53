"""The parameters of a notebook, with a stand-in for Databricks' dbutils, which is nowhere else."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.engine import notebook
from jobs.engine.notebook import CHECKOUT, parameters, session
from mkdm.errors import ConfigError


class Widgets:
    """Text widgets: made once with a default, and then as the user has set them."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def text(self, name: str, default: str) -> None:
        self.values.setdefault(name, default)

    def get(self, name: str) -> str:
        return self.values[name]


@pytest.fixture
def user_ns(monkeypatch) -> dict[str, object]:
    """The variables of a notebook."""
    variables: dict[str, object] = {}
    monkeypatch.setattr(notebook, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
    return variables


def test_defaults_and_the_environment(monkeypatch):
    monkeypatch.setenv("MKDM_QUERIES", "8")
    assert vars(parameters(warehouse="build/w", queries=60)) == {"warehouse": "build/w", "queries": 8}


def test_on_databricks_widgets_alone_count(user_ns, monkeypatch):
    monkeypatch.setenv("MKDM_QUERIES", "8")
    user_ns["dbutils"] = SimpleNamespace(widgets=Widgets(warehouse="main.qa"))
    given = parameters(warehouse="build/w", queries=60, share=0.5)
    assert vars(given) == {"warehouse": "main.qa", "queries": 60, "share": 0.5}
    assert user_ns["dbutils"].widgets.values["queries"] == "60"


def test_a_value_of_another_type_is_told(user_ns, monkeypatch):
    monkeypatch.setenv("MKDM_QUERIES", "many")
    with pytest.raises(ConfigError, match="MKDM_QUERIES is 'many'; it must be a whole number"):
        parameters(queries=60)
    user_ns["dbutils"] = SimpleNamespace(widgets=Widgets(share=""))
    with pytest.raises(ConfigError, match="the widget share is ''; it must be a number"):
        parameters(share=0.5)


def test_a_kernel_in_the_folder_of_the_notebooks_goes_up_to_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(CHECKOUT / "notebooks")
    parameters()
    assert Path.cwd() == CHECKOUT
    monkeypatch.chdir(tmp_path)
    parameters()
    assert Path.cwd() == tmp_path


def test_the_session_is_the_notebook_s_own_or_the_running_one(user_ns, spark):
    assert session("test") is spark
    user_ns["spark"] = object()
    assert session("test") is user_ns["spark"]
