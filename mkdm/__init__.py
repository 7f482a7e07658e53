"""The MKDM engine without Spark: texts, model, scoring, evaluation, export, serving, training, pages.

`from mkdm import Scorer` is the way in. The modules up here (errors, columns, config, credentials, doors, quiet) may be
imported from everywhere; the packages stand one on another, text, model, scoring, evaluation, export, serving, train,
pages, benchmark, experiments, and import those before them, each by its door: the names that its `__init__` lists.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

__version__ = "0.8.0"

if TYPE_CHECKING:
    from mkdm.scoring import Scorer
else:
    __all__, __getattr__, __dir__ = door(__name__)
