"""Without the extra `oms`, what needs it says what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from foreword.errors import UsageError
from foreword.signing.oms import export_bundle, open_bundle
from tests.signing.made import NOW, policy


def test_without_the_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for action in (
        lambda: export_bundle(tmp_path, "me", tmp_path / "bundle"),
        lambda: open_bundle(tmp_path, tmp_path / "bundle", policy(), NOW),
    ):
        with pytest.raises(UsageError, match=r"foreword\[oms\]") as caught:
            action()
        assert caught.value.code == "oms.missing"
