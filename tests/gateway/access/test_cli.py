"""`foreword access`: the first tenant and key without a server, and secrets on stdout only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.main import main
from foreword.serving.gateway.access.authorise import allowed
from foreword.serving.gateway.access.form import table_from_bytes, table_to_bytes
from foreword.serving.gateway.access.keys import believe
from foreword.serving.gateway.access.store import LOG, AccessStore
from foreword.serving.gateway.access.table import AccessTable

DOCUMENT = (Path(__file__).parents[3] / "docs" / "access.md").read_text()


class Shell:
    """The command line at one home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys = home, capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["access", *words])
        out, self.err = self.capsys.readouterr()
        assert ended.value.code == code, self.err
        return out

    def value(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    @property
    def table(self) -> AccessTable:
        return AccessStore(self.home / "gateway").table()

    def believed(self, text: str) -> Any:
        return believe(self.table, f"Bearer {text.strip()}", datetime.now(UTC))


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    monkeypatch.setenv("FOREWORD_ACTOR", "alice@desk")
    return Shell(tmp_path, capsys)


def test_from_nothing_to_a_key_that_works(shell: Shell) -> None:
    shell("tenant", "add", "acme", "--grant", "other/*", "--base", "--tokens", "1000")
    text = shell("key", "issue", "acme", "--days", "30", "--only", "other/x", "--requests", "5")
    principal = shell.believed(text)
    assert text.count("\n") == 1
    assert allowed(shell.table, principal, "other/x")
    assert not allowed(shell.table, principal, "acme/x")
    assert principal.expires - datetime.now(UTC) > timedelta(days=29)
    of_tenant, of_key = shell.table.limits_of("acme", principal.key_id)
    assert (of_tenant.tokens, of_key.requests) == (1000, 5)


def test_a_secret_is_on_stdout_once_and_nowhere_else(shell: Shell) -> None:
    shell("tenant", "add", "acme")
    text = shell("key", "issue", "acme").strip()
    key_id, secret = text.split("_", 2)[1:]
    assert key_id in shell.err
    told = shell.err + shell("key", "list") + json.dumps(shell.value("key", "list"))
    successor = shell("key", "rotate", key_id).strip()
    told += shell.err + shell("tenant", "show", "acme") + shell("key", "revoke", key_id)
    for path in (shell.home / "gateway").iterdir():
        told += path.read_text()
    for each in (secret, successor.split("_", 2)[2]):
        assert each not in told


def test_rotation_leaves_no_moment_without_a_key(shell: Shell) -> None:
    shell("tenant", "add", "acme")
    old = shell("key", "issue", "acme")
    new = shell("key", "rotate", old.split("_")[1], "--overlap", "1")
    assert shell.believed(old).tenant == shell.believed(new).tenant == "acme"
    shell("key", "rotate", new.split("_")[1], "--overlap", "0")
    with pytest.raises(Exception, match="expired"):
        shell.believed(new)


def test_an_operators_key_is_of_no_tenant(shell: Shell) -> None:
    assert shell.believed(shell("key", "issue", "--admin")).scopes == {"admin"}
    shell("tenant", "add", "acme")
    shell("key", "issue", "acme", "--admin", code=2)
    shell("key", "issue", code=2)
    shell("key", "issue", "acme", "--scope", "admin", code=2)
    assert "error[access.value]" in shell.err


def test_a_tenant_is_changed_bit_by_bit(shell: Shell) -> None:
    shell("tenant", "add", "acme", "--base", "--fallback", "base", "--streams", "3")
    shell("tenant", "limit", "acme", "--requests", "60", "--streams", "none")
    shell("tenant", "grant", "acme", "other/a", "other/b", "other/a")
    shell("tenant", "grant", "acme", "other/b", "--remove")
    shell("tenant", "set", "acme", "--disabled", "--note", "late with its bills")
    shown = shell.value("tenant", "show", "acme")
    assert shown["limits"] == {"requests": 60, "tokens": None, "streams": None}
    assert shown["grants"] == ["other/a"]
    assert (shown["base"], shown["fallback"], shown["enabled"]) == (True, "base", False)
    assert "off" in shell("tenant", "list")
    shell("tenant", "set", "acme", "--no-base", code=2)  # it would fall back to what it may not use
    shell("tenant", "set", "acme", "--no-base", "--fallback", "none", "--enabled")
    assert shell.table.tenant("acme").enabled
    assert not shell.table.tenant("acme").base
    shell("tenant", "limit", "acme", "--tokens", "many", code=2)
    shell("tenant", "add", "acme", code=2)
    shell("tenant", "remove", "acme")
    shell("tenant", "remove", "acme", code=8)


def test_kills_and_their_end(shell: Shell) -> None:
    shell("tenant", "add", "acme")
    shell("kill", "acme/x@1.0.0", "--reason", "leak")
    shell("kill", "acme", "--tenant", "--reason", "spam")
    assert shell.table.killed["acme/x@1.0.0"].by == "alice@desk"
    assert shell.table.active("acme") is None
    assert "killed" in shell("tenant", "list")
    shell("unkill", "acme", "--tenant")
    shell("unkill", "acme/x@1.0.0")
    assert not shell.table.killed
    shell("unkill", "acme/x@1.0.0", code=8)
    shell("kill", "acme/x@stable", "--reason", "x", code=2)
    shell("kill", "acme/x", code=2)  # without a reason
    log = [json.loads(line) for line in (shell.home / "gateway" / LOG).read_text().splitlines()]
    assert {line["actor"] for line in log} == {"alice@desk"}
    assert log[1]["reason"] == "leak"


def test_issuers(shell: Shell) -> None:
    url = "https://id.example.com"
    shell("issuer", "add", url, "--audience", "foreword", "--tenant", "acme", "--leeway", "5")
    assert shell.value("issuer", "list")[0]["leeway"] == 5
    assert url in shell("issuer", "list")
    shell(
        "issuer", "add", url, "--audience", "x", "--tenant", "acme", "--algorithm", "HS256", code=2
    )
    shell("issuer", "remove", url)
    shell("issuer", "remove", url, code=8)


def test_another_directory(shell: Shell, tmp_path: Path) -> None:
    shell("tenant", "add", "acme", "--access", str(tmp_path / "other"))
    assert not (tmp_path / "gateway").exists()
    assert "acme" in AccessStore(tmp_path / "other").table().tenants


def test_a_damaged_table_is_refused_by_every_verb(shell: Shell) -> None:
    shell("tenant", "add", "acme")
    (shell.home / "gateway" / "access.json").write_bytes(b"{}")
    for words in (("tenant", "list"), ("tenant", "add", "other"), ("key", "issue", "acme")):
        shell(*words, code=2)
        assert "error[access.form]" in shell.err


def test_the_file_in_the_document_is_one(shell: Shell) -> None:
    text = DOCUMENT.split("```json\n")[1].split("```")[0]
    table = table_from_bytes(text.encode())
    assert table_to_bytes(table) == text.encode()
    assert table.generation == 4
