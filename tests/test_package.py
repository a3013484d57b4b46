"""The public names, and that importing them costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import foreword

SOURCE = Path(foreword.__file__).parent


def test_public_names_are_sorted_complete_and_there() -> None:
    assert foreword.__all__ == sorted(foreword.__all__)
    assert set(foreword.__all__) == set(foreword._HOMES)
    for name in foreword.__all__:
        assert getattr(foreword, name).__name__ == name


def test_importing_foreword_imports_no_torch() -> None:
    script = "import sys, foreword; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_no_unsafe_loader_is_used() -> None:
    banned = {"pickle", "joblib", "dill", "marshal", "shelve"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {n.split(".")[0] for n in names} & banned, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
            if isinstance(node, ast.Assert):
                raise AssertionError(f"{path}:{node.lineno}: an assert is not a check")
