"""What the sources promise: no shell, nothing unpickled, no code of others; pinned by hash; licences known."""

import ast
import runpy
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [path for folder in ("mkdm", "udfs", "jobs", "cluster") for path in sorted((ROOT / folder).rglob("*.py"))]
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOCK = runpy.run_path(str(ROOT / ".ci" / "lock.py"))
LICENCES = runpy.run_path(str(ROOT / ".ci" / "licences.py"))


def calls() -> list[tuple[str, str, ast.Call]]:
    """(file and line, name of what is called, call) of every call in the sources."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node))
    return found


def test_no_command_goes_through_a_shell():
    started = 0
    for where, name, call in calls():
        owner, _, last = name.rpartition(".")
        assert not (last in SHELLS and owner in ("os", "subprocess", "asyncio")), where
        if owner == "subprocess" or name in ("launch_gateway",):
            started += owner == "subprocess"
            assert not any(word.arg == "shell" for word in call.keywords), f"{where}: a shell"
            first = ast.unparse(call.args[0]) if call.args else ""
            assert not first.startswith(("'", '"', "f'", 'f"')), f"{where}: a command as one string"
    assert started >= 4, "or else this test looks in the wrong place"


def test_nothing_is_unpickled_evaluated_or_loaded_with_foreign_code():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & UNPICKLES, f"{path}: {names}"
    for where, name, call in calls():
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert name not in ("eval", "exec", "compile", "yaml.load", "torch.load", "np.load", "numpy.load") or (
            name.endswith("np.load") and words.get("allow_pickle") in (None, "False")
        ), where
        assert words.get("trust_remote_code") in (None, "False"), where
        assert words.get("weights_only") in (None, "True"), where


def test_every_model_is_loaded_offline_from_safetensors():
    loads = 0
    for where, name, call in calls():
        if not name.endswith(".from_pretrained"):
            continue
        text = ast.unparse(call)
        loads += 1
        assert "local_files_only=True" in text or "**_OFFLINE" in text, where
        if "Model" in name:
            assert "use_safetensors=True" in text, where
    assert loads >= 4


def test_lock_has_a_hash_of_every_pinned_package_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    locked = LOCK["read"](text)
    pinned = LICENCES["pinned"]((ROOT / "constraints.txt").read_text())
    assert len(pinned) > 100
    assert set(locked) == {(LOCK["normalised"](name), version) for name, version in pinned}, "run .ci/lock.py"
    assert all(locked.values())
    assert "://" not in text
    assert "--index" not in text


def test_every_dependency_has_a_licence():
    rows = LICENCES["table"]((ROOT / "constraints.txt").read_text())
    there = 0
    for name, version, told in rows:
        try:
            distribution(name)
        except PackageNotFoundError:  # of an extra that this environment leaves out
            continue
        there += 1
        assert told, f"{name} {version} tells no licence: read it, and add it to READ_BY_HAND in .ci/licences.py"
    assert there > 50
    text = (ROOT / ".ci" / "LICENSES-third-party.md").read_text()
    for name, version, _ in rows:
        assert f"| {name} | {version} | " in text, f"run .ci/licences.py: {name} {version}"
    assert "|  |" not in text


@pytest.mark.parametrize(("name", "licence"), [("pyspark", "Apache"), ("numpy", "BSD"), ("torch", "BSD")])
def test_licences_are_those_that_are_known(name, licence):
    assert licence in LICENCES["licence"](distribution(name))
