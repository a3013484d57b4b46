"""R04: an id is what its grammar says and never a way out; what is no regular file is not read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foreword.artifact import Artifact, Digest, open_artifact, write_artifact
from foreword.artifact.disk import read_bounded
from foreword.artifact.manifest import check_name, check_version
from foreword.artifact.package import ENVELOPES, MANIFEST, TENSORS
from foreword.errors import ArtifactError, ForewordError
from foreword.registry.directory import DirectoryBlobs
from foreword.registry.references import parse_reference
from foreword.signing.store import read_envelopes
from tests.artifact.samples import sample
from tests.reliability import grammar
from tests.reliability.report import ROOT, Goals

pytestmark = pytest.mark.reliability("R04")

GRAMMARS: dict[str, tuple[Callable[[str], Any], Callable[[str], bool]]] = {
    "name": (check_name, grammar.is_name),
    "version": (check_version, grammar.is_version),
    "digest": (Digest.parse, grammar.is_digest),
    "reference": (parse_reference, grammar.is_reference),
}


@pytest.fixture(scope="module")
def ids() -> list[str]:
    made = grammar.hand_made()
    assert len(set(made)) == 200
    return [*made, *grammar.texts(10_000, seed=4)]


def test_nothing_outside_the_grammar_is_accepted(goals: Goals, ids: list[str]) -> None:
    wrong, accepted = [], dict.fromkeys(GRAMMARS, 0)
    for text in ids:
        for kind, (check, allowed) in GRAMMARS.items():
            taken = accepts(check, text)
            accepted[kind] += taken
            if taken != allowed(text):
                wrong.append(f"{kind} {text[:80]!a} was {'accepted' if taken else 'refused'}")
    assert min(accepted.values()) >= 50, accepted
    goals.goal("what is accepted is what the grammar allows, no more and no less",
               value="; ".join(wrong[:5]) or 0, passed=not wrong, count=len(ids))  # fmt: skip


def test_a_name_that_is_accepted_stays_where_it_is_put(ids: list[str]) -> None:
    for text in filter(grammar.is_name, ids):
        assert os.path.normpath(f"/srv/store/{text}") == f"/srv/store/{text}"
    for text in filter(grammar.is_reference, ids):
        assert str(parse_reference(text)) == text, "one text for one thing"


def accepts(check: Callable[[str], Any], text: str) -> bool:
    try:
        check(text)
    except ForewordError:
        return False
    return True


OPENS = """
import json, os, sys
from pathlib import Path
from foreword.artifact import Digest
from foreword.errors import ForewordError
from foreword.registry.directory import DirectoryBlobs
from foreword.signing.keys import load_key, load_public, new_key

root = Path(os.environ["FOREWORD_HOME"])
ids = json.loads((root / "ids.json").read_text())
blobs = DirectoryBlobs(root / "blobs")
blobs.create()
ids.append(str(blobs.put(b"there")))
new_key("support")

def use(text):
    for action in (lambda: load_key(text), lambda: load_public(text),
                   lambda: blobs.get(Digest.parse(text), 10), lambda: blobs.find(Digest.parse(text)),
                   lambda: blobs.delete(Digest.parse(text))):
        try: action()
        except ForewordError: pass

use("support")  # libraries are loaded by now
PATHS = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.link",
         "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.utime"}
touched, watching = set(), True
def hook(event, given):
    if watching and event in PATHS and not isinstance(given[0], int):  # an open file is no path
        touched.add(os.fsdecode(given[0]))
sys.addaudithook(hook)
for text in ids: use(text)
watching = False
outside = [path for path in touched if not os.path.realpath(path).startswith(f"{root}/")]
print(json.dumps({"touched": len(touched), "outside": outside}))
"""


def test_no_id_leads_to_a_file_outside(goals: Goals, ids: list[str], tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "ids.json").write_text(json.dumps(ids))
    run = subprocess.run(
        [sys.executable, "-c", OPENS], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "FOREWORD_HOME": str(root)},
    )  # fmt: skip
    found = json.loads(run.stdout)
    assert found["touched"] > 100, "sound ids do lead to files"
    goals.goal("no id leads to a file outside the root",
               value=len(found["outside"]), passed=not found["outside"], count=len(ids))  # fmt: skip


KINDS = ("a link to the file itself", "a link to another file", "a link to nothing", "a link in a circle",
         "a hard link to another file", "a pipe", "a socket", "a directory")  # fmt: skip


@contextlib.contextmanager
def replaced(path: Path, kind: str, other: Path) -> Iterator[None]:
    """Something else in place of a file; the file lies beside it meanwhile."""
    aside = other.with_name("aside")
    path.rename(aside)
    makers: dict[str, Callable[[], Any]] = {
        "a link to the file itself": lambda: path.symlink_to(aside),
        "a link to another file": lambda: path.symlink_to(other),
        "a link to nothing": lambda: path.symlink_to(other.with_name("nothing")),
        "a link in a circle": lambda: path.symlink_to(path),
        "a hard link to another file": lambda: path.hardlink_to(other),
        "a pipe": lambda: os.mkfifo(path),
        "a socket": lambda: bound(path),
        "a directory": path.mkdir,
    }
    made = makers[kind]()
    yield
    if isinstance(made, socket.socket):
        made.close()
    path.rmdir() if kind == "a directory" else path.unlink()
    aside.rename(path)


def bound(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(path.parent):  # a socket's path must be short
        listening.bind(path.name)
    return listening


def test_what_is_no_file_of_ours_is_refused_in_place_of_each(goals: Goals, tmp_path: Path) -> None:
    artifact = sample()
    readers = places(tmp_path, artifact)
    other = tmp_path / "other"
    other.write_bytes(b"secret")
    wrong = []
    for path, read in readers:
        for kind in KINDS:
            read()
            began = time.monotonic()
            with replaced(path, kind, other):
                code = code_of(read)
            late = time.monotonic() - began > 1
            if code == "accepted" or late:
                wrong.append(
                    f"{kind} in place of {path.name}: {code}, {'late' if late else 'soon'}"
                )
        read()
    goals.goal("8 of 8 kinds of what is no file of ours are refused in place of each file",
               value="; ".join(wrong) or f"{len(readers) * len(KINDS)} refusals", passed=not wrong,
               count=len(readers) * len(KINDS))  # fmt: skip


def places(root: Path, artifact: Artifact) -> list[tuple[Path, Callable[[], Any]]]:
    """The files that readers open, each with its reader."""
    directory = write_artifact(artifact, root / "made")
    (directory / ENVELOPES).write_bytes(b"{}\n")
    blobs = DirectoryBlobs(root / "blobs")
    blobs.create()
    digest = blobs.put(artifact.tensor_bytes)
    (blob,) = (root / "blobs" / "sha256").glob("*/*")
    return [
        (directory / MANIFEST, lambda: open_artifact(directory)),
        (directory / TENSORS, lambda: open_artifact(directory)),
        (directory / ENVELOPES, lambda: read_envelopes(directory)),
        (blob, lambda: blobs.get(digest, 1 << 20)),
    ]


def code_of(read: Callable[[], Any]) -> str:
    try:
        read()
    except ForewordError as e:
        return e.code
    return "accepted"


def test_a_device_is_not_read() -> None:
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(ArtifactError) as caught:
            read_bounded(Path(device), 1 << 20)
        assert caught.value.code == "artifact.not_a_file"


def test_a_hard_link_to_the_right_bytes_is_the_file(tmp_path: Path) -> None:
    # Copies made with `cp -l` share their bytes; what counts is that they have the right digest.
    made = write_artifact(sample(), tmp_path / "made")
    (tmp_path / "copy").mkdir()
    for name in (MANIFEST, TENSORS):
        (tmp_path / "copy" / name).hardlink_to(made / name)
    assert open_artifact(tmp_path / "copy").digest == sample().digest
