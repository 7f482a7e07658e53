"""An hour's work of one GPU in pieces, by worth, each kept as it ends: see README.md beside this file.

    python tests/device/lease.py --data DIR --weights DIR --work DIR --out DIR [--seconds 560] [--from DIR]
    python tests/device/lease.py --work DIR --out DIR --send NAME

Training and labelling are the project's own: `python -m mkdm.experiments` and `labels.py`. The second form puts the
weights of one run into the folder that comes back.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from choice import FIRST, choose_files
from labels import complete, keep, label, read_kept, use
from packing import SMALL, pack, restore
from rates import BLOCK, measure_rates
from sets import KEY, read_pairs, write_set, write_sets

from mkdm.train import MANIFEST

HERE = Path(__file__).parent
FIRST_STUDENT = HERE.parent / "sample" / "student"
SETS = ("labelled", "unlabelled")
AT_ONCE = 8
"""Files of a set that one load of a teacher labels: some 65,000 pairs."""


class TimeIsUpError(Exception):
    """The rest is for another call."""


@dataclass(frozen=True)
class Lease:
    """One call.

    Attributes:
        data: the shared data, or a folder with pairs that `tests/paper/pairs.py` wrote.
        encoders: by name, as `mkdm.experiments` takes them.
        share: of the queries of all sets.
        chosen: unlabelled pairs at most.
        block: queries and passages of the pairs that rates are of.
        ends: when time is up, by `time.monotonic`.
    """

    data: Path
    encoders: str
    work: Path
    out: Path
    teachers: Path
    students: Path
    ends: float
    share: float = 1.0
    chosen: int = 300_000
    parallel: int = 3
    block: tuple[int, int] = BLOCK

    @property
    def left(self) -> float:
        """Seconds.

        Raises:
            TimeIsUpError: there are none.
        """
        left = self.ends - time.monotonic()
        if left < 1:
            raise TimeIsUpError
        return left

    @property
    def pairs(self) -> Path:
        """A folder a set, with pairs and golden labels."""
        return self.work / "pairs" if (self.data / "labelled_pairs").exists() else self.data

    @property
    def tokenizer(self) -> str:
        """The folder of the tokenizer, which all encoders share."""
        return self.encoders.partition(",")[0].partition("=")[2]

    def teacher_runs(self) -> dict[str, Path]:
        """By id, the folders of the teachers."""
        runs = yaml.safe_load(self.teachers.read_text())["runs"]
        return {
            name: self.work / "teachers" / "runs" / f"{name}-{run.get('seeds', [0])[0]}" for name, run in runs.items()
        }

    def student_names(self) -> list[str]:
        """The students, by worth."""
        return list(yaml.safe_load(self.students.read_text())["runs"])

    def kept(self, name: str) -> Path:
        """The labels of a set that come back."""
        return self.work / "kept" / f"{name}.parquet"

    def labelled(self, name: str) -> bool:
        """Whether all teachers have labelled a set."""
        return self.kept(name).exists() and set(self.teacher_runs()) <= set(read_kept(self.kept(name))[1])

    def order(self) -> list[str]:
        """The runs whose weights come back, by worth: until there are labels the teachers, then students."""
        students = [f"{name}-0" for name in self.student_names()]
        teachers = [folder.name for folder in self.teacher_runs().values()]
        return [*students, *teachers] if self.labelled("labelled") else [*teachers, *students]

    def keep_what_is_there(self) -> None:
        """Fill the folder that comes back."""
        for name in SETS:
            folder = self.work / "sets" / name
            if not (folder / MANIFEST).exists():
                continue
            before = read_kept(self.kept(name))[1] if self.kept(name).exists() else None
            if before is None or set(complete(folder, self.work / "labels")) - set(before):
                keep(folder, self.work / "labels", self.kept(name), "tests/device/lease.sh")
        pack(self.work, self.out, self.order())


def run(lease: Lease) -> bool:
    """Do what is missing; returns whether all of it is done."""
    pieces = [make_sets, train_teachers, label_labelled, label_unlabelled, train_students, rates]
    began, done, told = time.monotonic(), True, dict[str, str]()
    lease.work.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        started = time.monotonic()
        try:
            lease.left  # noqa: B018
            piece(lease)
            told[piece.__name__] = f"{time.monotonic() - started:.1f} s"
        except TimeIsUpError:
            told[piece.__name__], done = f"cut off after {time.monotonic() - started:.1f} s", False
        print(f"{time.monotonic() - began:7.1f} s  {piece.__name__}: {told[piece.__name__]}", flush=True)
        (lease.work / "seconds.json").write_text(json.dumps(told, indent=1) + "\n")
        lease.keep_what_is_there()
        if not done:
            break
    return done


def make_sets(lease: Lease) -> None:
    """Pairs and training sets, but for that of the candidates."""
    pairs = lease.pairs
    if not (pairs / "test" / "golden_labels.parquet").exists():
        told = ["--data", str(lease.data), "--output", str(pairs), "--unlabelled", "1000000"]
        _call([sys.executable, str(HERE.parent / "paper" / "pairs.py"), *told], lease.left)
    folders = [pairs / name for name in ("labelled", "valid", "test")]
    for name, size in write_sets(folders, lease.work / "sets", lease.tokenizer, lease.share):
        print(f"           {name}: {size:,} rows", flush=True)


def train_teachers(lease: Lease) -> None:
    """The teachers, all at once, unless their labels are there already; meanwhile unlabelled pairs are chosen."""
    with ThreadPoolExecutor(1) as meanwhile:
        chosen = meanwhile.submit(choose_unlabelled, lease)
        if not all(lease.labelled(name) for name in SETS):
            _experiments(lease, lease.teachers, lease.work / "teachers", lease.work / "sets", None)
        chosen.result()


def choose_unlabelled(lease: Lease) -> None:
    """Which unlabelled pairs are labelled, and their set. What was kept of them before says it, too."""
    target, pairs = lease.work / "chosen", lease.pairs / "unlabelled"
    if lease.kept("unlabelled").exists():
        keys = read_kept(lease.kept("unlabelled"))[0][KEY]
        write_set(read_pairs(pairs).merge(keys, on=KEY), "train", lease.tokenizer, lease.work / "sets" / "unlabelled")
        return
    _ = list(write_sets([pairs], lease.work / "candidates", lease.tokenizer, lease.share))
    candidates = lease.work / "candidates" / "unlabelled"
    if not label(str(FIRST_STUDENT), candidates, FIRST, lease.work / "labels", lease.left, AT_ONCE):
        raise TimeIsUpError
    chosen = choose_files(pairs, candidates, lease.work / "labels", target, lease.chosen)
    answers = (chosen["first"] > 0.5).mean()
    print(f"           {len(chosen):,} unlabelled pairs, {answers:.1%} answers to the first student", flush=True)
    write_set(read_pairs(target), "train", lease.tokenizer, lease.work / "sets" / "unlabelled")


def label_labelled(lease: Lease) -> None:
    """Soft labels of the labelled training pairs."""
    _label(lease, "labelled")


def label_unlabelled(lease: Lease) -> None:
    """Soft labels of the chosen unlabelled pairs."""
    _label(lease, "unlabelled")


def train_students(lease: Lease) -> None:
    """The students, by worth; those that an earlier call measured are not trained again."""
    for name in SETS:
        use(lease.work / "sets" / name, [lease.kept(name)], lease.work / "soft" / name)
    scores = lease.work / "students" / "scores"
    missing = [name for name in lease.student_names() if not (scores / f"{name}-0.npz").exists()]
    if missing:
        _experiments(lease, lease.students, lease.work / "students", lease.work / "soft", ",".join(missing))


def rates(lease: Lease) -> None:
    """Pairs a second of the students that are here, beside `CrossEncoder.predict`."""
    runs = [lease.work / "students" / "runs" / f"{name}-0" for name in lease.student_names()]
    runs = [folder for folder in runs if (folder / "model.safetensors").exists()]
    try:
        measure_rates(runs, lease.pairs, lease.work, lambda: lease.left, lease.block)
    except subprocess.TimeoutExpired:
        raise TimeIsUpError from None


def _label(lease: Lease, name: str) -> None:
    """Label a set with all teachers, some at once: one alone leaves a GPU waiting for its host."""
    if lease.labelled(name):
        return
    folder, labels = lease.work / "sets" / name, lease.work / "labels"

    def by(teacher: str, model: Path) -> None:
        if lease.parallel == 1:
            label(str(model), folder, teacher, labels, lease.left, AT_ONCE)
            return
        flags = {"model": model, "set": folder, "teacher": teacher, "labels": labels, "seconds": lease.left}
        flags |= {"at-once": AT_ONCE}
        command = [sys.executable, str(HERE / "labels.py"), "label"]
        _call([*command, *(text for flag, value in flags.items() for text in (f"--{flag}", str(value)))], lease.left)

    with ThreadPoolExecutor(lease.parallel) as pool:
        for future in [pool.submit(by, teacher, model) for teacher, model in lease.teacher_runs().items()]:
            future.result()
    lease.keep_what_is_there()
    if not lease.labelled(name):
        raise TimeIsUpError


def _experiments(lease: Lease, plan: Path, output: Path, sets: Path, only: str | None) -> None:
    """Run a plan, and keep what ends meanwhile."""
    measured = {name: lease.work / "sets" / name for name in ("valid", "test")}
    named = {name: sets / name for name in SETS} | measured
    names = ",".join(f"{name}={folder}" for name, folder in named.items())
    command = [sys.executable, "-m", "mkdm.experiments", "--plan", str(plan), "--sets", names]
    command += ["--encoders", lease.encoders, "--output", str(output), "--parallel", str(lease.parallel)]
    command += ["--only", only] if only else []
    command += ["--seconds", str(max(1.0, lease.left - 5))]
    log = lease.work / f"{output.name}.log"
    with log.open("a") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        while (code := _wait(process, 5)) is None:
            lease.keep_what_is_there()
    if code and "time was up" in log.read_text()[-1000:]:
        raise TimeIsUpError
    if code:
        raise RuntimeError(f"{log}: {log.read_text()[-2000:]}")


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _call(command: list[str], seconds: float) -> None:
    try:
        subprocess.run(command, check=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise TimeIsUpError from None


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 where all is done, 3 where another call is to go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="shared data, or a folder that tests/paper/pairs.py wrote")
    parser.add_argument("--weights", type=Path, help="folder with the encoders bge-small-en-v1.5 and e5-small-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder that stays while the machine does")
    parser.add_argument("--out", type=Path, required=True, help="folder that comes back")
    parser.add_argument("--from", dest="given", type=Path, help="folder with what came back of earlier calls")
    parser.add_argument("--send", help="a run whose weights come back, and nothing else")
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--share", type=float, default=1.0, help="share of the queries")
    parser.add_argument("--chosen", type=int, default=300_000, help="unlabelled pairs")
    parser.add_argument("--parallel", type=int, default=3, help="runs at once")
    parser.add_argument("--block", type=int, nargs=2, default=BLOCK, help="queries and passages that rates are of")
    parser.add_argument("--teachers", type=Path, default=HERE / "teachers.yaml")
    parser.add_argument("--students", type=Path, default=HERE / "students.yaml")
    given = parser.parse_args(argv)
    if given.send:
        (given.out / SMALL).unlink(missing_ok=True)
        return 0 if pack(given.work, given.out, [given.send], small=False) else 2
    if given.given:
        print(f"from {given.given}: {', '.join(restore(given.given, given.work)) or 'nothing'}", flush=True)
    encoders = f"bge={given.weights / 'bge-small-en-v1.5'},e5={given.weights / 'e5-small-v2'}"
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU", flush=True)
    done = run(
        Lease(
            data=given.data,
            encoders=encoders,
            work=given.work,
            out=given.out,
            teachers=given.teachers,
            students=given.students,
            ends=time.monotonic() + given.seconds,
            share=given.share,
            chosen=given.chosen,
            parallel=given.parallel,
            block=tuple(given.block),
        )
    )
    print("all done" if done else "not all done: the same command goes on", flush=True)
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())
