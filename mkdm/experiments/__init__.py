"""Plans of training runs: what they say, trained or gone on with, and measured; `python -m mkdm.experiments`.

May import `mkdm.benchmark` and what is below it.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.experiments.loop import ExperimentsConfig
    from mkdm.experiments.plan import Plan
else:
    __all__, __getattr__, __dir__ = door(__name__)
