"""What a notebook asks for before its first job: its parameters and a session, on Databricks and elsewhere."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from IPython.core.getipython import get_ipython
from pyspark.sql import SparkSession

from cluster.session import ClusterConfig, start_session
from mkdm.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[2]
_KINDS = {int: "a whole number", float: "a number"}


def parameters(**defaults: str | int | float) -> SimpleNamespace:
    """The parameters of a notebook by name: widgets on Databricks, elsewhere $MKDM_<NAME> or the default.

    A kernel that Jupyter has started in the checkout's folder `notebooks` goes up to the checkout, so that relative
    folders mean what they mean to `mkdm` there.

    Raises:
        ConfigError: a value that is not of its default's type.
    """
    if Path.cwd() == CHECKOUT / "notebooks":
        os.chdir(CHECKOUT)
    widgets = getattr(_of_notebook("dbutils"), "widgets", None)
    found = {}
    for name, default in defaults.items():
        if widgets is not None:
            widgets.text(name, str(default))
            where, text = f"the widget {name}", widgets.get(name)
        else:
            where = f"MKDM_{name.upper()}"
            text = os.environ.get(where, str(default))
        try:
            found[name] = type(default)(text)
        except ValueError as error:
            raise ConfigError(f"{where} is {text!r}; it must be {_KINDS[type(default)]}") from error
    return SimpleNamespace(**found)


def session(name: str) -> SparkSession:
    """The notebook's own `spark`, as Databricks gives it; or the running session; or a new one on this machine."""
    spark = _of_notebook("spark")
    return start_session(ClusterConfig(), f"notebook {name}") if spark is None else spark


def _of_notebook(name: str) -> Any:
    """A variable of the notebook; None where it has none, or there is no notebook."""
    shell = get_ipython()  # type: ignore[no-untyped-call]
    return None if shell is None else shell.user_ns.get(name)
