"""The one direction of imports: notebooks, jobs → udfs → mkdm, and jobs → cluster; packages in order, by doors."""

import ast
import os
import re
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pyspark
import pytest

from mkdm.doors import names_of

ROOT = Path(__file__).parent.parent
OURS = {"mkdm", "udfs", "jobs", "cluster", "notebooks", "tests"}
MAY_IMPORT = {
    "mkdm": {"mkdm"},
    "udfs": {"udfs", "mkdm"},
    "jobs": {"jobs", "udfs", "cluster", "mkdm"},
    "cluster": {"cluster"},
}
ORDER = {
    "mkdm": [
        "text",
        "model",
        "scoring",
        "evaluation",
        "export",
        "serving",
        "train",
        "pages",
        "benchmark",
        "experiments",
    ],
    "jobs": ["engine", "funnel", "training_set", "rescoring", "reports"],
}
"""Packages of a folder, bottom first. The modules of `mkdm` itself are below them, those of `jobs` above."""
TOP = {"mkdm": 0, "jobs": 100}
JOBS_FROM_MKDM = {"mkdm", "mkdm.config", "mkdm.columns", "mkdm.credentials", "mkdm.doors", "mkdm.errors"}
FORBIDDEN = {
    "mkdm": {"pyspark", "delta"},
    "udfs": {"delta"},
    "jobs": {"torch", "transformers"},
    "cluster": {"torch", "transformers", "pandas", "pyarrow"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in MAY_IMPORT
    for path in sorted((ROOT / folder).rglob("*.py"))
}
DOORS = {
    f"{top}.{name}": names_of((ROOT / top / name / "__init__.py").read_text())
    for top, names in ORDER.items()
    for name in names
} | {"mkdm": names_of((ROOT / "mkdm" / "__init__.py").read_text())}


def imports(folder: str) -> set[tuple[str, str]]:
    """(file, imported module) of every import statement below the folder, in functions too."""
    return {(str(path), name) for path in (ROOT / folder).rglob("*.py") for name, _ in statements(path)}


def statements(path: Path) -> list[tuple[str, str | None]]:
    """(module, name or None) of every import statement of a file, in functions too."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            found += [(str(node.module), alias.name) for alias in node.names]
    return found


def package(module: str) -> str:
    """The package that a module stands in, such as mkdm.text; the folder for a module of its top."""
    return ".".join(module.split(".")[:2]) if module.count(".") == 2 or module in DOORS else module.split(".")[0]


def level(module: str) -> int:
    top, _, rest = package(module).partition(".")
    return ORDER[top].index(rest) + 1 if rest else TOP[top]


def graph() -> dict[str, set[str]]:
    """By module, the modules that it imports, deferred imports counted; a name from a door stands for its module."""
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module in DOORS:
            continue
        edges[module] = set()
        for source, name in statements(path):
            if source in DOORS and name in DOORS[source]:
                source = DOORS[source][name]
                while source in DOORS:
                    source = DOORS[source][str(name)]
            elif f"{source}.{name}" in MODULES:
                source = f"{source}.{name}"
            if source in MODULES and source not in DOORS:
                edges[module].add(source)
    return edges


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folder_imports_only_what_it_may(folder):
    seen = imports(folder)
    assert seen, folder
    for path, module in seen:
        top = module.split(".")[0]
        assert top not in OURS or top in MAY_IMPORT[folder], f"{path} imports {module}"
        assert top not in FORBIDDEN[folder], f"{path} imports {module}"


@pytest.mark.parametrize("folder", sorted(ORDER))
def test_every_package_has_its_place(folder):
    assert {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")} == set(ORDER[folder])


def test_no_package_imports_one_above_it():
    for module, taken in graph().items():
        for other in taken:
            if module.split(".")[0] in ORDER and module.split(".")[0] == other.split(".")[0]:
                assert level(other) <= level(module), f"{module} imports {other}"


def test_no_two_modules_import_each_other():
    edges = graph()
    assert len(edges) > 100
    assert "mkdm.scoring.template" in edges["mkdm.train.training_set"], "a name from a door is its module's"
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_packages_are_entered_by_their_doors():
    for module, path in MODULES.items():
        for source, name in statements(path):
            inside = package(source) == package(module) or module in DOORS
            if package(source) not in DOORS or package(source) == "mkdm" or inside:
                continue
            assert source in DOORS, f"{module} imports {source}: take the name from {package(source)}"
            assert name in DOORS[source], f"{module} takes {name}, which the door of {source} does not name"


@pytest.mark.parametrize("name", sorted(DOORS))
def test_a_door_names_what_is_there(name):
    module = import_module(name)
    assert sorted(DOORS[name]) == module.__all__
    assert not {path.stem for path in (ROOT / name.replace(".", "/")).glob("*.py")} & set(DOORS[name]), (
        "a module's name"
    )
    doc = (module.__doc__ or "").strip().splitlines()
    assert 3 <= len(doc) <= 8, "3 to 8 lines say what lives there and what it may import"
    for each in module.__all__:
        assert getattr(module, each) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = module.no_such_name


def test_the_top_of_jobs_is_one_file_a_command():
    from jobs.__main__ import COMMANDS

    files = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__", "__main__"}
    assert files == {command.replace("-", "_") for command in COMMANDS} - {"train", "add_lexical"}


def test_jobs_take_only_config_names_and_errors_from_mkdm():
    taken = {(path, module) for path, module in imports("jobs") if module.split(".")[0] == "mkdm"}
    assert {module for _, module in taken} <= JOBS_FROM_MKDM, taken


def test_petastorm_stays_in_one_module():
    users = {path for folder in MAY_IMPORT for path, module in imports(folder) if module.startswith("petastorm")}
    assert len(users) <= 1, users


JVM = re.compile(r"\b(_jvm|_jsparkSession|_jdf|_jsc|_jmap|_sc|sparkContext|py4j)\b")
"""What a session of Spark Connect has not."""


def test_one_module_reaches_into_the_jvm():
    names, imported = {}, {}
    for module, path in MODULES.items():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names[module] = {name for name in attributes if JVM.fullmatch(name)}
        imported[module] = {source for source, _ in statements(path) if source.split(".")[0] in ("py4j", "delta")}
    assert names.pop("cluster.classic")
    assert imported.pop("cluster.classic") == {"py4j.protocol", "delta.tables"}
    assert not any(names.values()), names
    assert {module for module, taken in imported.items() if taken} == {"cluster.delta"}, "the coordinates of its JARs"


CLIENT = """
import sys, shutil, importlib.abc
from pathlib import Path

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("py4j", "delta"):
            raise ImportError(f"there is no {name}")

sys.meta_path.insert(0, Absent())
import pyspark.util
assert pyspark.util.is_remote_only()
import jobs.__main__
for command, (module, _) in jobs.__main__.COMMANDS.items():
    __import__(module)
assert "cluster.classic" not in sys.modules
"""


def test_jobs_load_with_pysparks_client_alone(tmp_path):
    """Its package is PySpark without `pyspark.core`, JARs and py4j, by which PySpark itself tells the two apart."""
    whole = Path(pyspark.__file__).parent
    leave_out = shutil.ignore_patterns("core", "jars", "__pycache__", "examples", "tests", "data", "licenses", "bin")
    shutil.copytree(whole, tmp_path / "pyspark", ignore=leave_out)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", CLIENT]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "mkdm",
        "jobs.score",
        "jobs.label",
        "jobs.export_training_set",
        "jobs.evaluate",
        "jobs.demo",
        "jobs.serve",
        "jobs.__main__",
        "udfs.scoring",
    ],
)
def test_driver_does_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mkdm_needs_no_jvm():
    code = "import sys; from mkdm import Scorer; import mkdm.train.loop; sys.exit('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("folder", ["tests", "tests/scale", "tests/faults", "tests/device", "tests/paper"])
def test_a_script_s_folder_hides_no_standard_module(folder):
    """A script's own folder comes first on its path: an html.py there is what others get by `import html`."""
    own = {path.stem for path in (ROOT / folder).glob("*.py")}
    assert own
    assert own & sys.stdlib_module_names == set()
