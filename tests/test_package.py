"""The public names, and that importing them costs nothing."""

from __future__ import annotations

import subprocess
import sys

import foreword


def test_public_names_are_sorted_complete_and_there() -> None:
    assert foreword.__all__ == sorted(foreword.__all__)
    assert set(foreword.__all__) == set(foreword._HOMES)
    for name in foreword.__all__:
        assert getattr(foreword, name).__name__ == name


def test_importing_foreword_imports_no_torch() -> None:
    script = "import sys, foreword; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
