"""The one direction of imports: notebooks, jobs → udfs → mkdm, and jobs → cluster."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"mkdm", "udfs", "jobs", "cluster", "notebooks", "tests"}
MAY_IMPORT = {
    "mkdm": {"mkdm"},
    "udfs": {"udfs", "mkdm"},
    "jobs": {"jobs", "udfs", "cluster", "mkdm"},
    "cluster": {"cluster"},
}
JOBS_FROM_MKDM = {"mkdm", "mkdm.config", "mkdm.columns", "mkdm.errors"}
FORBIDDEN = {
    "mkdm": {"pyspark", "delta"},
    "udfs": {"delta"},
    "jobs": {"torch", "transformers"},
    "cluster": {"torch", "transformers", "pandas", "pyarrow"},
}


def imports(folder: str) -> set[tuple[str, str]]:
    """(file, imported module) of every import statement below the folder, in functions too."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(str(path), alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: import by full name"
                found.add((str(path), str(node.module)))
    return found


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folder_imports_only_what_it_may(folder):
    seen = imports(folder)
    assert seen, folder
    for path, module in seen:
        top = module.split(".")[0]
        assert top not in OURS or top in MAY_IMPORT[folder], f"{path} imports {module}"
        assert top not in FORBIDDEN[folder], f"{path} imports {module}"


def test_jobs_take_only_config_names_and_errors_from_mkdm():
    taken = {(path, module) for path, module in imports("jobs") if module.split(".")[0] == "mkdm"}
    assert {module for _, module in taken} <= JOBS_FROM_MKDM, taken


def test_petastorm_stays_in_one_module():
    users = {path for folder in MAY_IMPORT for path, module in imports(folder) if module.startswith("petastorm")}
    assert len(users) <= 1, users


@pytest.mark.parametrize(
    "module",
    ["jobs.score", "jobs.label", "jobs.export_training_set", "jobs.evaluate", "jobs.demo", "jobs.cli", "udfs.scoring"],
)
def test_driver_does_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mkdm_needs_no_jvm():
    code = "import sys, mkdm.scorer, mkdm.train; sys.exit('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
