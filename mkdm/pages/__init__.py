"""HTML pages for people: an evaluation, a scoring run. One file each, that needs no other and no network.

A page's module figures out and draws; its template in `templates/` holds the HTML.
May import `mkdm.train` and what is below it.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.pages.evaluation import METRIC_TITLES, SCORER_NAMES, evaluation_page
    from mkdm.pages.rendering import number
    from mkdm.pages.run import SCORE_BINS, ChunkWork, ExecutorWork, RunFigures, run_page
else:
    __all__, __getattr__, __dir__ = door(__name__)
