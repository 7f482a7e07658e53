"""The `mkdm` command: `mkdm JOB --flag …` runs `JOB`'s module."""

import sys
from collections.abc import Sequence
from importlib import import_module

from jobs.engine import run_job

COMMANDS = {
    "run": ("jobs.run", "build-pairs, score and rank, one after the other"),
    "build-pairs": ("jobs.build_pairs", "make pairs of queries, their top documents and the passages of those"),
    "label": ("jobs.label", "label every pair of a table with a zoo of teachers"),
    "export-training-set": ("jobs.export_training_set", "write labelled pairs, encoded, as Parquet for training"),
    "score": ("jobs.score", "score every pair of a table"),
    "rank": ("jobs.rank", "publish the best passages of each query"),
    "follow": ("jobs.follow", "keep a key-value view up to date with the ranking, as a ranker would"),
    "evaluate": ("jobs.evaluate", "measure scores against golden labels; two models with a paired test"),
    "runs": ("jobs.runs", "list the runs, their state, progress and rates; make a page of one"),
    "maintain": ("jobs.maintain", "compact, cluster and vacuum the tables"),
    "demo": ("jobs.demo", "score the shipped sample and show what came of it"),
    "train": ("mkdm.train.loop", "train a teacher or a student on golden and soft labels"),
    "add-lexical": ("mkdm.train.lexical", "let BM25 move the score of a trained student"),
    "experiments": ("jobs.experiments", "train the runs of a plan and make tables of what they reached"),
    "export-model": (
        "jobs.export_model",
        "make OpenVINO or ONNX files of a model, fp32, bf16, int8, through a quality gate",
    ),
    "pack": ("jobs.pack", "pack the engine and its packages for the executors of a cluster"),
    "benchmark": ("jobs.benchmark", "measure the job and the scorer beside the usual tools"),
    "serve": ("jobs.serve", "answer POST /rerank with a model, what is ranked already from the follower's view"),
    "cost": ("jobs.cost", "tell machine hours and money for very many pairs, from a benchmark"),
}


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<20} {text}" for name, (_, text) in COMMANDS.items()]
    return "usage: mkdm COMMAND [--flag VALUE …]\n\n" + "\n".join(lines) + "\n\nmkdm COMMAND --help tells its flags."


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        module, _ = COMMANDS[arguments[0]]
        run_job(import_module(module).main, arguments[1:])
    elif not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
    else:
        print(f"error: no command {arguments[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    main()
