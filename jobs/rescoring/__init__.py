"""A teacher for the head of each list: its run over the best passages of each query, and the lists that come of it.

The steps of `mkdm rank --rescore`: `jobs.rank` names the run and makes the commit. May import `jobs.engine`, and what
that may.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from jobs.rescoring.calibration import Calibration
    from jobs.rescoring.flags import RescoreFlags
    from jobs.rescoring.lists import Lists
    from jobs.rescoring.teacher_run import RESCORE_JOB, Rescoring, rescore_heads
else:
    __all__, __getattr__, __dir__ = door(__name__)
