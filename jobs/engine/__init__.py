"""What every job stands on: places and tables, input at pinned versions, chunks, commits, the ledger, progress.

May import `udfs`, `cluster` and the top of `mkdm`, and no other package of `jobs`.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from jobs.engine.blocks import Outcome, block_texts, blocks_of, dealt, keys_of, rows_of
    from jobs.engine.buckets import (
        bucket_of_document,
        chunk_of,
        dealt_in_order,
        in_bucket_order,
        with_bucket,
    )
    from jobs.engine.chunked_run import ChunkedRun, drop_staging, is_laid_out, record_failure, say, staging
    from jobs.engine.chunks import auto_chunks, known_rate
    from jobs.engine.command import run_job
    from jobs.engine.commit import Output, rejected_rows
    from jobs.engine.faults import ANY_FAULT, FOREIGN, one_line, told
    from jobs.engine.files import require_unchanged
    from jobs.engine.identity import Identity, settings_of
    from jobs.engine.incremental import (
        Changes,
        base_of,
        begin_to_replace,
        chain_of,
        changes_since,
        has_read,
        since,
        take_out,
    )
    from jobs.engine.ledger import (
        BASE_RUN,
        COMPLETE,
        FAILED,
        REMOVED,
        Ledger,
        Run,
        RunState,
        Totals,
        newest_build,
    )
    from jobs.engine.limits import released, stored, with_settings
    from jobs.engine.locations import exists, qualified, storage_of
    from jobs.engine.notebook import parameters, session
    from jobs.engine.pairs import (
        check_pairs,
        is_file,
        read_pairs,
        read_pinned,
        read_pinned_pairs,
        require_columns,
        require_ids,
    )
    from jobs.engine.pairs_flags import LabelledPairsFlags, TextFileFlags
    from jobs.engine.pairs_job import PairsJob, PairsJobConfig
    from jobs.engine.pinned_pairs import PinnedPairs
    from jobs.engine.place import literal
    from jobs.engine.plain_numbers import plain_number
    from jobs.engine.row_codes import ROW_CODE, ROW_MESSAGE, fault_code, fault_message, with_row_code
    from jobs.engine.run_report import RunReport, refuse_rejects, work_done
    from jobs.engine.schemas import PASSAGES_AT, TABLES
    from jobs.engine.scoring import (
        ROWS_PER_TASK,
        SCORE_JOB,
        groups_for,
        outcome_of,
        score_blocks,
        score_pairs,
        scored_rows,
    )
    from jobs.engine.settled import settled_model
    from jobs.engine.small_runs import interpreted
    from jobs.engine.table import Table
    from jobs.engine.text_files import FileOptions, small_batches
    from jobs.engine.warehouse import Warehouse
else:
    __all__, __getattr__, __dir__ = door(__name__)
