"""The house's arrows: who may import whom, and what must stay cheap."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"cacovid", "baselines", "sweeps", "analysis", "tests"}
ALLOWED = {
    "cacovid": {"cacovid"},
    "baselines": {"baselines", "cacovid"},
    "sweeps": {"sweeps", "cacovid"},  # baselines come through the registry
    "analysis": {"analysis"},
}


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports, inside functions and type-checking blocks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_the_arrows_between_packages(package):
    assert files(package), f"{package}/ holds no Python file"
    for path in files(package):
        wrong = imports(path) & OURS - ALLOWED[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_baselines_do_not_import_one_another():
    """A method can be read alone: of `baselines` it imports private parts at most, which import no method."""
    for path in files("baselines"):
        # The checks against golden vectors look at the methods.
        if path.parent.name != "fidelity":
            found = re.findall(r"^(?:from|import) (baselines\S*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert all(name.startswith("baselines._") for name in found), path.name


def test_analysis_reads_results_without_torch():
    for path in files("analysis"):
        assert not imports(path) & {"torch", "transformers", "lmms_eval"}, path.name


def modules() -> list[str]:
    names = []
    for package in sorted(ALLOWED):
        found = pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        names += [package, *(m.name for m in found if not m.name.endswith("__main__"))]
    return names


@pytest.mark.parametrize("name", modules())
def test_every_module_imports_and_its_examples_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_names_are_listed_without_torch():
    code = "import sys, cacovid.registry as r; assert r.method_names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
