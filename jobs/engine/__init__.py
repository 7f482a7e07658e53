"""What every job stands on: places and tables, input at pinned versions, chunks, commits, the ledger, progress.

May import `udfs`, `cluster` and the top of `mkdm`, and no other package of `jobs`.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from jobs.engine.chunked_run import ChunkedRun, cause, drop_staging, say, staging
    from jobs.engine.chunks import auto_chunks, known_rate
    from jobs.engine.command import run_job
    from jobs.engine.commit import Output, rejected_rows, scored_rows
    from jobs.engine.incremental import (
        BASE_RUN,
        base_of,
        chain_of,
        changed_pairs,
        refuse_duplicates,
        replaced_by,
        since,
        take_out,
    )
    from jobs.engine.ledger import (
        COMPLETE,
        FAILED,
        REMOVED,
        REPLACING,
        Identity,
        Ledger,
        Run,
        RunState,
        Totals,
        newest_build,
        settings_of,
    )
    from jobs.engine.notebook import parameters, session
    from jobs.engine.pairs import (
        PinnedPairs,
        check_pairs,
        is_file,
        read_pairs,
        read_pinned,
        read_pinned_pairs,
        require_columns,
    )
    from jobs.engine.plain_numbers import plain_number
    from jobs.engine.report import RunReport, refuse_rejects
    from jobs.engine.row_codes import ROW_CODE, ROW_MESSAGE, fit_texts, with_row_code
    from jobs.engine.tables import PASSAGES_AT, TABLES
    from jobs.engine.warehouse import Table, Warehouse
else:
    __all__, __getattr__, __dir__ = door(__name__)
