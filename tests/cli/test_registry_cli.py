"""`foreword registry` and what `generate` takes from it: refusals, output, and the whole tour."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import typer
from rich.console import Console

from foreword.artifact import Digest, write_artifact
from foreword.cli.main import app, main
from foreword.cli.prefixes import open_prefixes
from foreword.cli.registry import lines
from foreword.errors import ArtifactError, ForewordError, NotFound, TrustError
from foreword.registry.entries import Approved
from foreword.registry.registry import Registry
from tests.artifact.samples import sample
from tests.cli.test_cli import BLOCK, RUN, foreword, one_line
from tests.registry.samples import BASE, NOW, OTHER_BASE, by
from tests.tiny import shouting, tiny, tokenizer

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "foreword"
DOCUMENT = (ROOT / "docs" / "registry.md").read_text()
FREE = {"aliases", "fits", "geometry"}
"""JSON objects whose keys are names that users or models choose."""
READING = {"list", "show", "resolve", "matrix", "log", "why", "gc", "fsck", "export", "migrate",
           "mlflow"}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)

    def refused(self, code: str, exit_code: int) -> str:
        lines = self.err.strip().splitlines()
        assert lines, self.out
        assert lines[-1].startswith(f"error[{code}]: "), self.err
        assert self.code == exit_code
        return lines[-1]


Run = Callable[..., Done]
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two homes with a trusted key and a registry with a base: `empty`, and `full` with versions."""
    place = tmp_path_factory.mktemp("seed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_ACTOR", "ana@desk")
        patch.delenv("FOREWORD_REGISTRY", raising=False)
        patch.setenv("FOREWORD_HOME", str(place / "empty"))
        succeed("keys", "new", "ana")
        succeed("registry", "init")
        with Registry.open() as opened:
            opened.declare_base(BASE, by=by())
        shutil.copytree(place / "empty", place / "full")
        patch.setenv("FOREWORD_HOME", str(place / "full"))
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            made = write_artifact(sample(version=version), place / version)
            succeed("sign", made, "--key", "ana")
            succeed("registry", "publish", made)
        succeed("registry", "release", "acme/support@1.0.0")
        succeed("registry", "release", "acme/support@1.1.0")
    return place


def succeed(*words: object) -> None:
    assert ended(*words) == 0


def ended(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process; it fails the test unless it succeeds or `ok=False`."""
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOREWORD_ACTOR", "ana@desk")
    monkeypatch.delenv("FOREWORD_REGISTRY", raising=False)

    def run(*words: object, ok: bool = True) -> Done:
        capsys.readouterr()
        code = ended(*words)
        said = capsys.readouterr()
        assert not ok or code == 0, said.err
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def registry(run: Run, seed: Path, tmp_path: Path) -> Path:
    """A registry with a base, and a key that is trusted."""
    shutil.copytree(seed / "empty", tmp_path / "home")
    return tmp_path / "home" / "registry"


@pytest.fixture
def made(run: Run, registry: Path, tmp_path: Path) -> Make:
    """Makes and signs an artifact for that registry."""

    def made(version: str = "1.0.0", key: str | None = "ana", **changes: Any) -> Path:
        artifact = sample(version=version, **changes)
        directory = write_artifact(artifact, tmp_path / f"made-{artifact.digest.short}")
        if key:
            run("sign", directory, "--key", key)
        return directory

    return made


@pytest.fixture
def released(run: Run, seed: Path, tmp_path: Path) -> Path:
    """A registry with 1.0.0 and 1.1.0, which were stable in turn, and 1.2.0, which is only there."""
    shutil.copytree(seed / "full", tmp_path / "home")
    return tmp_path / "home" / "registry"


def verbs() -> Iterator[tuple[str, set[str]]]:
    """Every command of `foreword registry` and its options."""
    group = typer.main.get_command(app).commands["registry"]  # type: ignore[attr-defined]
    for name, command in group.commands.items():
        assert isinstance(command, click.Command) or command.params
        yield name, {option for parameter in command.params for option in parameter.opts}


def keys_of(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else []:
        yield from keys_of(each)
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key
        if key not in FREE:
            yield from keys_of(inner)


def test_no_verb_forgets_the_options_that_all_have() -> None:
    for name, options in verbs():
        assert {"--json", "--registry"} <= options, name
        if name not in READING | {"restore"}:
            assert {"--actor", "--reason"} <= options, name
        if name not in READING | {"init", "declare-base", "withdraw-base", "retention", "restore"}:
            assert "--expect" in options, name


def test_help_needs_no_database_and_no_torch() -> None:
    block = (
        BLOCK
        + "for n in ('numpy', 'sqlalchemy', 'obstore', 'cryptography'): sys.modules[n] = None\n"
    )
    done = foreword("registry", "--help", code=block + RUN)
    assert done.returncode == 0, done.stderr
    assert "publish" in done.stdout


def test_a_registry_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    for words in (("list",), ("show", "a/b"), ("rollback", "a/b"), ("gc",), ("migrate",)):
        message = run("registry", *words, ok=False).refused("registry.missing", 8)
        assert "foreword registry init" in message
    assert not (tmp_path / "home" / "registry").exists(), "looking makes nothing"


def test_init_again_changes_nothing_and_other_settings_are_refused(
    run: Run, registry: Path
) -> None:
    first = run("registry", "init", "--json").value
    assert first == {
        "directory": str(registry),
        "database": "sqlite:///journal.db",
        "blobs": "blobs",
        "approvals": 0,
        "bases": ["some/base"],
    }
    run("registry", "init", "--approvals", "2", ok=False).refused("registry.exists", 8)
    done = run("registry", "init", "--registry", registry / "in", "--database",
               "postgresql://u:hunter2@127.0.0.1/x", ok=False)  # fmt: skip
    assert "hunter2" not in done.refused("registry.secret", 2) + done.out


def test_a_base_that_cannot_be_loaded_leaves_no_registry(run: Run, tmp_path: Path) -> None:
    done = run("registry", "init", "--base", tmp_path / "none", ok=False)
    done.refused("base.missing", 4)
    assert not (tmp_path / "home").exists()


def test_the_registry_is_found_by_option_then_variable_then_home(
    run: Run, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    run("registry", "init", "--registry", other)
    assert run("registry", "matrix", "--json").value["bases"] != []
    assert run("registry", "matrix", "--json", "--registry", other).value["bases"] == []
    monkeypatch.setenv("FOREWORD_REGISTRY", str(other))
    assert run("registry", "matrix", "--json").value["bases"] == []
    assert run("registry", "matrix", "--json", "--registry", registry).value["bases"] != []


def test_publish_refuses_what_nobody_may_rely_on(run: Run, made: Make) -> None:
    def refused(directory: Path, code: str, exit_code: int) -> str:
        return run("registry", "publish", directory, ok=False).refused(code, exit_code)

    refused(made("1.0.0", key=None), "trust.unsigned", 7)
    run("keys", "new", "stranger")
    refused(made("1.0.1", key="stranger"), "trust.unknown_key", 7)
    foreign = made("1.0.2", base=OTHER_BASE.ref)
    assert "declare-base" in refused(foreign, "base.fingerprint", 4)
    run("registry", "publish", made("1.1.0"))
    refused(made("1.0.3"), "registry.version_not_newer", 8)
    refused(made("1.1.0", training={"seed": 8}), "registry.version_taken", 8)
    assert run("registry", "list", "--json").value["names"][0]["versions"] == 1


def test_a_missing_attestation_is_asked_for_and_then_enough(
    run: Run, made: Make, tmp_path: Path
) -> None:
    policy = tmp_path / "home" / "trust.toml"
    policy.write_text(policy.read_text() + '\n[tenants."acme"]\nrequire = ["review"]\n')
    directory = made()
    done = run("registry", "publish", directory, ok=False)
    assert "--attest review" in done.refused("trust.attestation_missing", 7)
    run("sign", directory, "--key", "ana", "--attest", "review", "--verdict", "pass")
    run("registry", "publish", directory)
    assert "review pass" in run("registry", "show", "acme/support").out


def test_attest_takes_every_new_envelope_once(run: Run, made: Make) -> None:
    directory = made()
    run("registry", "publish", directory)
    for kind, verdict in (("review", "pass"), ("evaluation", "fail")):
        run("sign", directory, "--key", "ana", "--attest", kind, "--verdict", verdict)
    attest = ("registry", "attest", "acme/support@1.0.0", "--envelope",
              directory / "envelopes.jsonl", "--json")  # fmt: skip
    generation = run("registry", "show", "acme/support", "--json").value["generation"]
    run(*attest, "--expect", generation - 1, ok=False).refused("registry.generation", 8)
    first = run(*attest, "--expect", generation).value
    assert first["new"]
    assert first["generation"] == generation + 2
    again = run(*attest).value
    assert not again["new"]
    assert again["entry"] == first["entry"]
    claims = run("registry", "show", "acme/support@1.0.0", "--json").value["claims"]
    assert [(c["kind"], c["verdict"]) for c in claims] == [
        ("sign", None), ("review", "pass"), ("evaluation", "fail"),
    ]  # fmt: skip
    run("keys", "new", "stranger")
    run("sign", directory, "--key", "stranger")
    run(*attest, ok=False).refused("trust.unknown_key", 7)
    (directory / "envelopes.jsonl").write_text("")
    run(*attest, ok=False).refused("usage", 2)


def test_the_journal_says_who_changed_what_and_why(
    run: Run, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = ("registry", "release", "acme/support@1.2.0", "--share", "0.1", "--json")
    entry = run(*change, "--actor", "bo@phone", "--reason", "größer als π").value["entry"]
    assert (entry["actor"], entry["reason"], entry["kind"]) == (
        "bo@phone",
        "größer als π",
        "released",
    )
    assert (
        run("registry", "rollback", "acme/support", "--json").value["entry"]["actor"] == "ana@desk"
    )
    monkeypatch.delenv("FOREWORD_ACTOR")
    monkeypatch.setenv("LOGNAME", "cy")
    entry = run("registry", "approve", "acme/support@1.2.0", "--json").value["entry"]
    assert entry["actor"].startswith("cy@")


def test_a_reason_cannot_steer_a_terminal(run: Run, released: Path) -> None:
    bad = ("--reason", "ok\x1b[2J")
    done = run("registry", "rollback", "acme/support", *bad, ok=False)
    assert "\x1b" not in done.refused("registry.reason", 2)
    done = run("registry", "show", "acme/\x1b[2J", ok=False)
    assert "\x1b" not in done.refused("reference.malformed", 2)
    run("registry", "rollback", "acme/support", "--reason", "[red]not markup[/red]")
    assert "[red]not markup[/red]" in run("registry", "log").out


def test_a_journal_that_others_wrote_cannot_steer_a_terminal(
    run: Run, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the database can put any text into an entry that is whole."""
    hostile = SimpleNamespace(actor="eve\x1b[2J", reason="[red]loud[/red]\x1b]0;x\x07", now=NOW)
    with Registry.open(released) as opened:
        version = opened.resolve("acme/support@1.2.0").version
        approved = Approved(version.name, version.digest)
        opened.journal.append(opened.state.head, approved, hostile)  # type: ignore[arg-type]
    for words in (("log",), ("show", "acme/support@1.2.0")):
        said = run("registry", *words).out
        assert "eve\\x1b[2J" in said
        assert "[red]loud[/red]" in said
        assert "\x1b" not in said
        assert "\x07" not in said
    terminal = io.StringIO()
    monkeypatch.setattr(lines, "out", Console(file=terminal, force_terminal=True, width=200))
    run("registry", "log")
    assert "\x1b[2J" not in terminal.getvalue()
    assert "[red]loud[/red]" in terminal.getvalue()


def test_doing_it_again_says_that_nothing_is_new(run: Run, released: Path) -> None:
    for words in (
        ("approve", "acme/support@1.2.0"),
        ("release", "acme/support@1.2.0", "--share", "0.5"),
        ("shift", "acme/support", "--share", "0.7"),
        ("rollback", "acme/support"),
        ("alias", "acme/support@1.0.0", "lts"),
        ("alias", "acme/support", "lts", "--remove"),
        ("retire", "acme/support@1.0.0"),
        ("revoke", "acme/support@1.2.0", "--reason", "bad"),
    ):
        first, again = (run("registry", *words, "--json").value for _ in range(2))
        assert first["new"], words
        assert not again["new"], words
        assert first["entry"] == again["entry"], words
        assert "nothing new: ana@desk did this at" in run("registry", *words).out


def test_a_generation_that_others_changed_is_a_conflict(run: Run, released: Path) -> None:
    seen = run("registry", "show", "acme/support", "--json").value["generation"]
    release = ("registry", "release", "acme/support@1.2.0", "--share", "0.1", "--expect", seen)
    run("registry", "rollback", "acme/support")
    run(*release, ok=False).refused("registry.generation", 8)
    assert run("registry", "show", "acme/support", "--json").value["release"]["canary"] is None


def test_no_change_ignores_the_generation_it_was_told(
    run: Run, released: Path, tmp_path: Path
) -> None:
    run("registry", "release", "acme/support@1.2.0", "--share", "0.1")
    made = write_artifact(sample(version="1.3.0"), tmp_path / "made")
    run("sign", made, "--key", "ana")
    old = write_artifact(sample(version="1.0.0"), tmp_path / "old")
    run("sign", old, "--key", "ana", "--attest", "review", "--verdict", "pass")
    before = run("registry", "log", "--json").value
    for words in (
        ("publish", made),
        ("attest", "acme/support@1.0.0", "--envelope", old / "envelopes.jsonl"),
        ("approve", "acme/support@1.2.0"),
        ("release", "acme/support@1.2.0", "--share", "0.2"),
        ("shift", "acme/support", "--share", "0.2"),
        ("rollback", "acme/support"),
        ("revoke", "acme/support@1.0.0", "--reason", "bad"),
        ("retire", "acme/support@1.0.0"),
        ("alias", "acme/support@1.0.0", "lts"),
    ):
        run("registry", *words, "--expect", "1", ok=False).refused("registry.generation", 8)
    run("registry", "alias", "acme/support@1.0.0", "lts")
    remove = ("registry", "alias", "acme/support", "lts", "--remove", "--expect", "1")
    run(*remove, ok=False).refused("registry.generation", 8)
    assert run("registry", "log", "--json").value[:-1] == before


def test_a_rollback_goes_to_the_version_that_was_named(run: Run, released: Path) -> None:
    run("registry", "release", "acme/support@1.2.0")
    run("registry", "rollback", "acme/support", "--to", "acme/support@1.0.0")
    assert run("registry", "resolve", "acme/support", "--json").value["version"] == "1.0.0"
    back = ("registry", "rollback", "acme/support", "--to", "acme/support@1.2.0")
    run(*back, ok=False).refused("registry.never_stable", 8)


def test_the_policy_that_is_named_is_the_one_that_decides(
    run: Run, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that knows only a stranger refuses everything that ana signed."""
    home = os.environ["FOREWORD_HOME"]
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "stranger"))
    run("keys", "new", "stranger")
    policy = tmp_path / "stranger" / "trust.toml"
    monkeypatch.setenv("FOREWORD_HOME", home)
    made = write_artifact(sample(version="1.3.0"), tmp_path / "made")
    run("sign", made, "--key", "ana")
    old = write_artifact(sample(version="1.0.0"), tmp_path / "old")
    run("sign", old, "--key", "ana", "--attest", "review", "--verdict", "pass")
    envelopes = old / "envelopes.jsonl"
    trust = ("--trust", policy)

    def refused(*words: object) -> None:
        run("registry", *words, *trust, ok=False).refused("trust.unknown_key", 7)

    refused("publish", made)
    refused("attest", "acme/support@1.0.0", "--envelope", envelopes)
    refused("release", "acme/support@1.2.0", "--share", "0.1")
    run("registry", "release", "acme/support@1.2.0", "--share", "0.1")
    refused("shift", "acme/support", "--share", "0.5")
    run("registry", "fsck", *trust, ok=False).refused("registry.broken", 8)
    with pytest.raises(TrustError) as error:
        open_prefixes(["acme/support"], trust=policy)
    assert error.value.code == "trust.unknown_key"


def test_others_have_to_approve_where_the_registry_asks_for_it(
    run: Run, made: Make, tmp_path: Path
) -> None:
    there = ("--registry", tmp_path / "strict")
    run("registry", "init", *there, "--approvals", "1")
    with Registry.open(tmp_path / "strict") as opened:
        opened.declare_base(BASE, by=by())
    run("registry", "publish", made(), *there)
    release = ("registry", "release", "acme/support@1.0.0", *there)
    run("registry", "approve", "acme/support@1.0.0", *there)
    run(*release, ok=False).refused("registry.not_approved", 8)
    run("registry", "approve", "acme/support@1.0.0", *there, "--actor", "bo")
    run(*release)


def test_the_next_step_that_is_named_can_be_taken(run: Run, made: Make) -> None:
    said = run("registry", "publish", made()).out
    for _ in range(3):
        step = re.search(r"next\s+foreword (registry .*?)(?: takes| gives|$)", said, re.MULTILINE)
        if step is None:
            break
        said = run(*step[1].split()).out
    assert "foreword generate --base BASE --prefix acme/support" in said
    assert run("registry", "resolve", "acme/support", "--json").value["version"] == "1.0.0"


def test_a_key_keeps_its_arm_and_a_version_has_none(run: Run, released: Path) -> None:
    run("registry", "release", "acme/support@1.2.0", "--share", "0.5")
    keys = [f"user-{i}" for i in range(8)]

    def arms() -> list[str]:
        resolve = ("registry", "resolve", "acme/support", "--json", "--key")
        return [run(*resolve, key).value["arm"] for key in keys]

    before = arms()
    assert set(before) == {"stable", "canary"}
    assert before == arms()
    run("registry", "shift", "acme/support", "--share", "0.9")
    assert all(b == "stable" or a == "canary" for b, a in zip(before, arms(), strict=True))
    pinned = run("registry", "resolve", "acme/support@1.0.0", "--key", "user-1", "--json").value
    assert (pinned["version"], pinned["arm"]) == ("1.0.0", None)
    done = run("registry", "resolve", "acme/support")
    assert Digest.parse(done.out.strip()), "a script can use it as it is"
    assert done.err == "acme/support 1.1.0, stable\n"


def test_a_page_goes_on_where_the_last_one_ended(run: Run, made: Make) -> None:
    names = ["acme/a", "acme/b", "acme/c", "other/d"]
    for name in names:
        run("registry", "publish", made(name=name))
    found, after = [], []
    while True:
        page = run("registry", "list", "acme/", "--limit", "2", *after, "--json").value
        found += [each["name"] for each in page["names"]]
        if page["after"] is None:
            break
        after = ["--after", page["after"]]
    assert found == names[:3]
    assert "more with --after acme/b" in run("registry", "list", "--limit", "2").err
    run("registry", "list", "--limit", "0", ok=False).refused("registry.limit", 2)
    assert "nothing here" in run("registry", "list", "nobody/").out


def test_a_table_is_folded_for_people_and_never_in_a_pipe(
    run: Run, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "t" * 63 + "/" + "p" * 63
    run("registry", "publish", made(name=name))
    assert run("registry", "list").out == f"{name}\t-\t-\t1.0.0\t1\n"
    terminal = io.StringIO()
    monkeypatch.setattr(lines, "out", Console(file=terminal, force_terminal=True, width=60))
    run("registry", "list")
    shown = re.sub("\x1b\\[[0-9]*m", "", terminal.getvalue()).splitlines()
    assert shown[0].split() == ["name", "stable", "canary", "newest", "versions"]
    assert max(map(len, shown)) <= 60


def test_an_alias_moves_and_reserved_words_do_not(run: Run, released: Path) -> None:
    for version in ("1.0.0", "1.2.0"):
        run("registry", "alias", f"acme/support@{version}", "lts")
        resolved = run("registry", "resolve", "acme/support@lts", "--json").value
        assert resolved["version"] == version
    run("registry", "alias", "acme/support@1.0.0", "stable", ok=False).refused("alias.reserved", 2)
    run("registry", "retire", "acme/support@1.2.0", ok=False).refused("registry.in_use", 8)
    run("registry", "alias", "acme/support", "lts", "--remove")
    run("registry", "resolve", "acme/support@lts", ok=False).refused("registry.alias_unknown", 8)
    run("registry", "retire", "acme/support@1.2.0")


def test_retention_is_a_dry_run_until_it_is_applied(run: Run, released: Path) -> None:
    plan = ("registry", "retention", "--keep", "0", "--older-than", "0", "--rollbacks", "0")
    before = run(*plan, "--json").value
    assert [fate["version"] for fate in before["versions"] if fate["goes"]] == ["1.0.0", "1.2.0"]
    assert run(*plan, "--json").value == before
    assert "2 versions of 3 may go" in run(*plan).out
    done = run(*plan, "--apply", "--json").value
    assert [each["version"] for each in done["retired"]] == ["1.0.0", "1.2.0"]
    assert "0 versions of 1 may go" in run(*plan).out
    run("registry", "gc", "--grace", "0", ok=False).refused("usage", 2)
    assert run("registry", "gc", "--json").value["condemned"] == [], "they are younger than a day"


def test_matrix_says_what_an_upgrade_breaks(run: Run, released: Path, tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "next")
    tokenizer().save_pretrained(tmp_path / "next")
    found = run("registry", "matrix", "acme/", "--json").value
    assert [row["fits"] for row in found["versions"]] == [{"some/base": None}] * 3
    broken = run("registry", "matrix", "--against", tmp_path / "next", "--json").value
    assert broken["replaces"] == "some/base"
    assert [(b["version"], b["serving"]) for b in broken["breaks"]] == [
        ("1.1.0", True), ("1.0.0", False), ("1.2.0", False),
    ]  # fmt: skip
    assert {b["misfit"]["code"] for b in broken["breaks"]} == {"base.fingerprint"}
    run("registry", "declare-base", tmp_path / "next", "--id", "next")
    compare = ("registry", "matrix", "--against", tmp_path / "next")
    message = run(*compare, ok=False).refused("registry.base_unknown", 2)
    assert "some/base" in message
    assert "3 versions" in run(*compare, "--replaces", "some/base").out
    run("registry", "withdraw-base", "some/base", ok=False).refused("registry.base_in_use", 8)
    run("registry", "withdraw-base", "next")


def test_every_key_of_the_json_is_documented(run: Run, released: Path, tmp_path: Path) -> None:
    run("registry", "alias", "acme/support@1.0.0", "lts")
    run("registry", "release", "acme/support@1.2.0", "--share", "0.5")
    run("registry", "approve", "acme/support@1.2.0")
    outputs = [
        run("registry", *words, "--json").value
        for words in (
            ("init",), ("list",), ("show", "acme/support"), ("show", "acme/support@1.2.0"),
            ("resolve", "acme/support"), ("matrix",), ("retention", "--keep", "0"), ("gc",),
            ("migrate",), ("shift", "acme/support", "--share", "1"), ("rollback", "acme/support"),
            ("revoke", "acme/support@1.2.0", "--reason", "bad"), ("log",),
            ("why", "acme/support"), ("fsck",), ("export", tmp_path / "copy"),
        )
    ]  # fmt: skip
    missing = {key for value in outputs for key in keys_of(value) if f"`{key}`" not in DOCUMENT}
    assert not missing


def test_every_refusal_is_documented() -> None:
    text = "".join(
        path.read_text()
        for folder in ("registry", "cli/registry")
        for path in (SOURCE / folder).rglob("*.py")
    )
    codes = set(re.findall(r'code="([a-z_]+\.[a-z_]+)"', text))
    assert len(codes) > 40
    assert {code for code in codes if f"`{code}`" not in DOCUMENT} <= {
        "storage.busy", "storage.damaged", "storage.full", "storage.remote", "storage.write",
    }  # fmt: skip


def test_history_says_why_and_knows_a_name_from_a_mistake(run: Run, released: Path) -> None:
    run("registry", "release", "acme/support@1.2.0", "--share", "0.25", "--reason", "try it")
    said = run("registry", "why", "acme/support").out
    assert "acme/support 1.1.0" in said
    assert "75 % of the keys" in said
    assert re.search(r"since .* by ana@desk \(entry \d+\): try it", said)
    log = run("registry", "log", "acme/support").out.splitlines()
    assert [line.split("\t")[3] for line in log][-2:] == [
        "acme/support 1.1.0 is stable", "acme/support 1.2.0 is the canary and gets 25 % of the keys",
    ]  # fmt: skip
    seen = log[-2].split("\t")[0]
    assert run("registry", "log", "--after", seen).out.splitlines() == log[-1:]
    for verb in ("why", "log"):
        message = run("registry", verb, "acme/suport", ok=False).refused("registry.name_unknown", 8)
        assert "did you mean" in message


def test_fsck_says_what_is_broken_and_ends_with_an_error(run: Run, released: Path) -> None:
    sound = run("registry", "fsck", "--json").value
    assert sound["sound"], sound["findings"]
    digest = run("registry", "resolve", "acme/support").out.strip().removeprefix("sha256:")
    (blob,) = (released / "blobs").rglob(digest)
    blob.unlink()
    done = run("registry", "fsck", ok=False)
    done.refused("registry.broken", 8)
    assert digest in done.out
    assert "mend" in done.out
    found = run("registry", "fsck", "--json", ok=False).value
    assert not found["sound"]
    (released.parent / "trust.toml").unlink()
    assert "no trust policy" in run("registry", "fsck", ok=False).err


def test_fsck_misses_an_entry_that_was_written_down(run: Run, released: Path) -> None:
    entry = run("registry", "log", "--json").value[-1]
    run("registry", "fsck", "--known", f"{entry['seq']}:{entry['hash']}")
    other = f"{entry['seq'] + 1}:{entry['hash']}"
    run("registry", "fsck", "--known", other, ok=False).refused("registry.broken", 8)
    run("registry", "fsck", "--known", "7:abc", ok=False).refused("usage", 2)


def test_a_backup_gives_the_same_registry(run: Run, released: Path, tmp_path: Path) -> None:
    run("registry", "release", "acme/support@1.2.0", "--share", "0.25")
    run("registry", "export", tmp_path / "copy")
    other = ("--registry", tmp_path / "other")
    run("registry", "init", *other)
    run("registry", "restore", tmp_path / "copy", *other)
    for look in (("list",), ("show", "acme/support"), ("log",), ("resolve", "acme/support")):
        here, there = (run("registry", *look, "--json", *where).value for where in ((), other))
        assert here == there, look
    run("registry", "restore", tmp_path / "copy", *other)
    run("registry", "rollback", "acme/support", *other)
    done = run("registry", "restore", tmp_path / "copy", *other, ok=False)
    done.refused("restore.not_empty", 8)
    run("registry", "restore", tmp_path / "none", *other, ok=False).refused("export.missing", 8)


# What generate takes from a registry


def test_a_directory_that_exists_wins_over_a_name(
    run: Run, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = sample(version="9.0.0")
    monkeypatch.chdir(tmp_path)
    by_name = open_prefixes(["acme/support"])["acme/support"]
    assert by_name.manifest.version == "1.1.0"
    write_artifact(own, tmp_path / "acme" / "support")
    found = open_prefixes(["acme/support", "acme/support@stable", str(by_name.digest)])
    assert [a.digest for a in found.values()] == [own.digest, by_name.digest, by_name.digest]


def test_every_form_of_a_reference_gives_its_version(run: Run, released: Path) -> None:
    run("registry", "release", "acme/support@1.2.0", "--share", "0.5")
    run("registry", "alias", "acme/support@1.0.0", "lts")
    expected = {"acme/support": "1.1.0", "acme/support@1.0.0": "1.0.0", "acme/support@lts": "1.0.0",
                "acme/support@stable": "1.1.0", "acme/support@canary": "1.2.0"}  # fmt: skip
    found = open_prefixes(expected)
    assert {text: artifact.manifest.version for text, artifact in found.items()} == expected


def refusal(kind: type[ForewordError], *texts: str) -> ForewordError:
    with pytest.raises(kind) as error:
        open_prefixes(texts)
    return error.value


def test_a_mistyped_path_is_not_taken_for_a_lost_version(
    run: Run, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(ArtifactError, "./acme/suport").code == "artifact.missing"
    error = refusal(NotFound, "acme/suport")
    assert error.code == "registry.name_unknown"
    assert "there is no directory acme/suport" in str(error)
    assert "did you mean 'acme/support'" in str(error)
    assert refusal(ForewordError, "acme/support@1.x").code == "reference.malformed"
    monkeypatch.setenv("FOREWORD_REGISTRY", str(tmp_path / "none"))
    error = refusal(NotFound, "my-prefix")
    assert error.code == "registry.missing"
    assert "there is no directory my-prefix" in str(error)


def test_nothing_is_generated_from_what_is_not_trusted_any_more(run: Run, released: Path) -> None:
    directory = released / "blobs"
    digest = open_prefixes(["acme/support"])["acme/support"].manifest.tensors.sha256
    (blob,) = directory.rglob(digest.hex)
    whole = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert refusal(ForewordError, "acme/support").code == "registry.blob_damaged"
    blob.write_bytes(whole)
    run("keys", "revoke", "ana")
    assert refusal(ForewordError, "acme/support").code == "trust.key_revoked"
    run("registry", "revoke", "acme/support@1.1.0", "--reason", "it swears")
    error = refusal(ForewordError, "acme/support@1.1.0")
    assert error.code == "registry.revoked"
    assert "it swears" in str(error)


def test_from_a_key_to_a_revocation(tmp_path: Path) -> None:
    """The whole tour, each step in a process of its own."""
    home, base = tmp_path / "home", str(tmp_path / "base")
    tiny("llama").save_pretrained(base)
    tokenizer().save_pretrained(base)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shouting()))

    def ok(*words: object) -> str:
        done = foreword(*map(str, words), home=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(code: str, exit_code: int, *words: object) -> str:
        return one_line(foreword(*map(str, words), home=home), code, exit_code)

    def train(version: str, seed: int) -> Path:
        made = tmp_path / version
        ok("train", "--base", base, "--data", tmp_path / "rows.jsonl", "--out", made,
           "--set", "train.steps=30", "--set", "prefix.length=4", "--set", "name=acme/loud",
           "--set", f"version={version}", "--set", f"seed={seed}")  # fmt: skip
        return made

    generate = ("generate", "--base", base, "--max-new-tokens", "6", "--prefix")

    ok("keys", "new", "ana")
    first, second = train("1.0.0", 0), train("1.1.0", 1)
    refused("trust.unsigned", 7, "verify", first)
    ok("sign", first, "--key", "ana")
    ok("verify", first)

    ok("registry", "init", "--base", base)
    ok("registry", "publish", first)
    refused("registry.not_released", 8, *generate, "acme/loud", "ab1")
    ok("registry", "release", "acme/loud@1.0.0")
    ok("sign", second, "--key", "ana")
    ok("registry", "publish", second)
    ok("registry", "release", "acme/loud@1.1.0", "--share", "0.1", "--reason", "louder")

    rows = [{"prefix": "acme/loud@canary"}, {"prefix": str(second)}, {"prefix": None}, {}]
    lines = [json.dumps({"input": "ab1", **row}) + "\n" for row in rows]
    (tmp_path / "ask.jsonl").write_text("".join(lines))
    said = ok(*generate, "acme/loud", "--input", tmp_path / "ask.jsonl")
    answers = [json.loads(line) for line in said.splitlines()]
    assert [a["prefix"] for a in answers] == [
        "acme/loud@1.1.0", "acme/loud@1.1.0", None, "acme/loud@1.0.0",
    ]  # fmt: skip
    assert answers[0]["text"] == answers[1]["text"], "the registry gives back what was trained"
    assert answers[0]["digest"] == answers[1]["digest"] != answers[3]["digest"]

    ok("registry", "shift", "acme/loud", "--share", "0.5")
    ok("registry", "rollback", "acme/loud", "--reason", "too loud")
    refused("registry.no_canary", 8, *generate, "acme/loud@canary", "ab1")
    ok("registry", "revoke", "acme/loud@1.0.0", "--reason", "it swears")
    assert "it swears" in refused("registry.revoked", 8, *generate, "acme/loud@1.0.0", "ab1")
    refused("registry.not_released", 8, *generate, "acme/loud", "ab1")
    entries = json.loads(ok("registry", "log", "acme/loud", "--json"))
    assert [entry["kind"] for entry in entries] == [
        "published", "released", "published", "released", "shifted", "rolled_back", "revoked",
    ]  # fmt: skip
    assert json.loads(ok("registry", "fsck", "--json"))["sound"]
