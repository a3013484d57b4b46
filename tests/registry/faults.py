"""Faults of every kind, put into a registry on SQLite and a directory, each with what fsck has to say.

A fault is a function of a place and a source of choices; it breaks one thing and returns the codes of
which one has to be found, and a text that has to stand where it was found.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foreword.artifact import Digest
from foreword.registry.entries import (
    Aliased,
    Approved,
    BaseWithdrawn,
    Event,
    Head,
    Published,
    Released,
    Retired,
)
from foreword.registry.facts import Claim, VersionFacts, facts_of
from foreword.registry.fsck import Report, fsck
from foreword.registry.gc import needed
from foreword.registry.layout import FILE, Layout, init
from foreword.registry.registry import Registry
from foreword.registry.state import State
from foreword.registry.tagged import tagged
from foreword.signing.policy import TrustPolicy
from tests.artifact.samples import tensors
from tests.registry.samples import (
    BASE,
    NAME,
    OTHER_BASE,
    POLICY,
    attested,
    by,
    key,
    publish,
    sample,
    signed,
)

OLD = datetime(2026, 1, 1, tzinfo=UTC)
OTHER = "zebra/sales"


@dataclass
class Place:
    """A registry that a fault is put into, and what fsck is given to find it."""

    layout: Layout
    policy: TrustPolicy = POLICY
    head: Head | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def look(self) -> Report:
        return fsck(self.layout, self.now, policy=self.policy, known=self.head)

    @property
    def blobs(self) -> Path:
        return self.layout.directory / "blobs"

    @property
    def database(self) -> Path:
        return self.layout.directory / "journal.db"

    def blob(self, digest: Digest) -> Path:
        return self.blobs / "sha256" / digest.hex[:2] / digest.hex

    @property
    def state(self) -> State:
        with Registry.open(self.layout.directory) as registry:
            return registry.refresh()

    def copy(self, directory: Path) -> Place:
        shutil.copytree(self.layout.directory, directory)
        return replace(self, layout=Layout.load(directory))


@dataclass(frozen=True)
class Expected:
    """One of these codes has to be found, at a place that names `where`."""

    codes: tuple[str, ...]
    where: str = ""

    def met_by(self, report: Report) -> bool:
        return any(
            finding.code.removeprefix("fsck.") in self.codes and self.where in finding.where
            for finding in report.findings
        )


Fault = Callable[[Place, random.Random], Expected]


def numbers(start: float) -> dict[str, bytes]:
    """Tensors no other version has."""
    return {name: struct.pack("<f", start) + data[4:] for name, data in tensors().items()}


def healthy(directory: Path) -> Place:
    """Some of everything: names, releases, findings, approvals, aliases, a revoked and a retired version."""
    layout = init(Layout(directory))
    with Registry.open(directory) as registry:
        registry.declare_base(OTHER_BASE, by=by())
        for minor in range(5):
            publish(registry, f"1.{minor}.0", tensors=numbers(10.0 + minor))
        publish(registry, "0.1.0", name=OTHER, tensors=numbers(50.0))
        publish(registry, "0.2.0", name=OTHER)
        registry.retire(f"{NAME}@1.0.0", by=by())
        registry.revoke(f"{OTHER}@0.1.0", by=by())
        chosen = sample(version="1.2.0", tensors=numbers(12.0))
        finding = attested(chosen, key("ana"))
        registry.attest(f"{NAME}@1.2.0", finding, policy=POLICY, by=by())
        registry.approve(f"{NAME}@1.2.0", by=by("ben"))
        registry.release(f"{NAME}@1.1.0", policy=POLICY, by=by())
        registry.release(f"{NAME}@1.2.0", 0.25, policy=POLICY, by=by())
        registry.release(f"{OTHER}@0.2.0", policy=POLICY, by=by())
        registry.alias("gold", f"{NAME}@1.3.0", by=by())
        return Place(layout, head=registry.refresh().head)


# Blobs.


def _any_blob(place: Place, rng: random.Random) -> Digest:
    return rng.choice(sorted(needed(place.state)))


def _blob_fault(damage: Callable[[Path, random.Random], None], *codes: str) -> Fault:
    def fault(place: Place, rng: random.Random) -> Expected:
        digest = _any_blob(place, rng)
        path = place.blob(digest)
        path.chmod(0o644)
        damage(path, rng)
        return Expected(codes, digest.hex)

    return fault


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def _extend(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.choice([1, 4096])))


def _other_bytes(path: Path, rng: random.Random) -> None:
    others = [other for other in path.parent.parent.glob("*/*") if other != path]
    path.write_bytes(rng.choice(sorted(others)).read_bytes())


def _link(path: Path, _rng: random.Random) -> None:
    target = path.parent.parent.parent / "elsewhere"
    path.rename(target)  # the right bytes, and still whoever owns the target can change them
    path.symlink_to(target)


def _directory(path: Path, _rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, _rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _renamed(path: Path, rng: random.Random) -> None:
    path.rename(path.with_name(rng.choice([path.name + ".bak", path.name[:-1], path.name.upper()])))


def _open_to_all(place: Place, rng: random.Random) -> Expected:
    path = place.blob(_any_blob(place, rng))
    path.chmod(rng.choice([0o666, 0o464, 0o446]))
    return Expected(("mode",), str(path))


def _misplaced(place: Place, rng: random.Random) -> Expected:
    path = place.blob(_any_blob(place, rng))
    shard = path.parent.parent / rng.choice(
        [s for s in ("00", "7f", "ff") if s != path.parent.name]
    )
    shard.mkdir(exist_ok=True)
    path.rename(shard / path.name)
    return Expected(("stranger",), str(shard / path.name))


def _collected(place: Place, rng: random.Random) -> Expected:
    digest = _any_blob(place, rng)
    copy = place.blobs / "condemned" / "sha256" / digest.hex[:2] / digest.hex
    copy.parent.mkdir(parents=True)
    place.blob(digest).rename(copy)
    return Expected(("blob_condemned",), digest.hex)


def _orphan(place: Place, rng: random.Random) -> Expected:
    with Registry.open(place.layout.directory) as registry:
        digest = registry.blobs.put(rng.randbytes(64))
    _age(place.blob(digest))
    return Expected(("orphan",), digest.hex)


def _stranger(place: Place, rng: random.Random) -> Expected:
    shard = rng.choice(sorted((place.blobs / "sha256").iterdir()))
    path = rng.choice([shard, shard.parent]) / rng.choice(
        ["README", ".nfs0001", "a\x1b[31m", "0" * 63]
    )
    path.write_bytes(b"what is this")
    return Expected(("stranger",), path.parent.name)


def _draft(place: Place, rng: random.Random) -> Expected:
    path = place.blobs / "incoming" / f"tmp{rng.randrange(10**6)}.blob"
    path.write_bytes(rng.randbytes(10))
    _age(path)
    return Expected(("draft",), path.name)


def _no_blobs(place: Place, _rng: random.Random) -> Expected:
    shutil.rmtree(place.blobs)
    return Expected(("store",))


# The journal, written to behind Foreword's back.


@contextlib.contextmanager
def _behind(place: Place) -> Iterator[sqlite3.Connection]:
    """A connection to the file for somebody who takes the triggers away and puts them back."""
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        kept = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in kept:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in kept:
            connection.execute(sql)
        connection.commit()


def _any_seq(connection: sqlite3.Connection, rng: random.Random) -> int:
    (last,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
    return rng.randint(1, last)


def _column(*names: str) -> Fault:
    """Another value in one of these columns of some entry."""

    def fault(place: Place, rng: random.Random) -> Expected:
        name = rng.choice(names)
        with _behind(place) as connection:
            seq = _any_seq(connection, rng)
            query = f"SELECT {name} FROM journal WHERE seq = ?"  # noqa: S608
            (old,) = connection.execute(query, (seq,)).fetchone()
            new = rng.choice(
                [_edited(str(old), rng), None if name == "name" and old else f"{old}x", 7, b"x"]
            )
            change = f"UPDATE journal SET {name} = ? WHERE seq = ?"  # noqa: S608
            connection.execute(change, (new, seq))
        return Expected(("row" if name == "name" else "chain",), f"entry {seq}")

    return fault


def _edited(text: str, rng: random.Random) -> str:
    """One character is another one."""
    at = rng.randrange(len(text)) if text else 0
    return text[:at] + chr(ord(text[at]) ^ 1 if text else 97) + text[at + 1 :]


def _left_out(place: Place, rng: random.Random) -> Expected:
    with _behind(place) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
        seq = rng.randrange(1, last)
        connection.execute("DELETE FROM journal WHERE seq = ?", (seq,))
    return Expected(("chain",), f"entry {seq}")


def _swapped(place: Place, rng: random.Random) -> Expected:
    with _behind(place) as connection:
        seq = max(1, _any_seq(connection, rng) - 1)
        connection.execute("UPDATE journal SET seq = -1 WHERE seq = ?", (seq,))
        connection.execute("UPDATE journal SET seq = ? WHERE seq = ?", (seq, seq + 1))
        connection.execute("UPDATE journal SET seq = ? WHERE seq = -1", (seq + 1,))
    return Expected(("chain",), f"entry {seq}")


def _cut(place: Place, rng: random.Random) -> Expected:
    with _behind(place) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
        connection.execute("DELETE FROM journal WHERE seq > ?", (last - rng.randint(1, 5),))
    return Expected(("cut",), f"entry {last}")


def _unchained(place: Place, rng: random.Random) -> Expected:
    with _behind(place) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
        connection.execute(
            "INSERT INTO journal SELECT seq + 1, hash, ?, time, actor, reason, kind, name, body "
            "FROM journal WHERE seq = ?",
            (Digest.of(rng.randbytes(8)).hex, last),
        )
    return Expected(("chain",), f"entry {last + 1}")


def _before_the_first(place: Place, rng: random.Random) -> Expected:
    seq = rng.choice([0, -1, -(2**40)])
    with _behind(place) as connection:
        connection.execute(
            "INSERT INTO journal SELECT ?, previous, ?, time, actor, reason, kind, name, body "
            "FROM journal WHERE seq = 1",
            (seq, Digest.of(rng.randbytes(8)).hex),
        )
    return Expected(("row",), f"entry {seq}")


def _page(place: Place, rng: random.Random) -> Expected:
    size = place.database.stat().st_size
    with place.database.open("r+b") as file:
        file.seek(rng.randrange(size // 4096) * 4096)
        file.write(rng.randbytes(4096))
    return Expected(("database", "schema", "chain", "row", "entry"))


def _no_database(place: Place, rng: random.Random) -> Expected:
    if rng.random() < 0.5:
        place.database.unlink()
    else:
        place.database.write_bytes(b"")
    return Expected(("database", "schema"))


def _schema(place: Place, rng: random.Random) -> Expected:
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        connection.execute(
            rng.choice(
                ["UPDATE foreword_schema SET version_num = '0000'",
                 "UPDATE foreword_schema SET version_num = '9999'",
                 "DELETE FROM foreword_schema",
                 "DROP TABLE foreword_schema"]
            )
        )  # fmt: skip
        connection.commit()
    return Expected(("schema",))


def _trigger(place: Place, rng: random.Random) -> Expected:
    name = rng.choice(["journal_no_update", "journal_no_delete", "journal_next"])
    nothing = "BEFORE UPDATE ON journal BEGIN SELECT 1; END"
    statements = {
        "gone": (f"DROP TRIGGER {name}",),
        "other": (f"DROP TRIGGER {name}", f"CREATE TRIGGER {name} {nothing}"),
        "more": (f"CREATE TRIGGER extra {nothing}",),
    }
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        for statement in statements[rng.choice(sorted(statements))]:
            connection.execute(statement)
        connection.commit()
    return Expected(("guard",))


# Entries that follow the last one as they should, and tell what must not be.


def _forged(make: Callable[[State, random.Random], tuple[Event, Expected]]) -> Fault:
    def fault(place: Place, rng: random.Random) -> Expected:
        with Registry.open(place.layout.directory) as registry:
            state = registry.refresh()
            event, expected = make(state, rng)
            registry.journal.append(state.head, event, by("mallory"))
        return expected

    return fault


def _by_version(state: State, version: str, name: str = NAME) -> Digest:
    return state.numbers[name, version]


def _releases_what_ended(state: State, rng: random.Random) -> tuple[Event, Expected]:
    name, version = rng.choice([(NAME, "1.0.0"), (OTHER, "0.1.0")])
    share = rng.choice([0.0, 0.5, 1.0])
    return Released(name, _by_version(state, version, name), share), Expected(("release",), name)


def _retires_what_serves(state: State, rng: random.Random) -> tuple[Event, Expected]:
    version = rng.choice(["1.1.0", "1.2.0"])
    return Retired(NAME, _by_version(state, version)), Expected(("release",), NAME)


def _releases_anothers(state: State, rng: random.Random) -> tuple[Event, Expected]:
    digest = rng.choice([_by_version(state, "1.1.0"), Digest.of(b"nobody's")])
    return Released(OTHER, digest, rng.choice([0.5, 1.0])), Expected(("release",), OTHER)


def _released_anothers_once(place: Place, rng: random.Random) -> Expected:
    """It is stable no more, and a rollback would come by it."""
    with Registry.open(place.layout.directory) as registry:
        state = registry.refresh()
        others = rng.choice([_by_version(state, "1.1.0"), Digest.of(b"nobody's")])
        for digest in (others, _by_version(state, "0.2.0", OTHER)):
            event = Released(OTHER, digest, 1.0)
            registry.journal.append(registry.refresh().head, event, by("mallory"))
    return Expected(("release",), OTHER)


def _aliases_anothers(state: State, rng: random.Random) -> tuple[Event, Expected]:
    digest = rng.choice([_by_version(state, "0.2.0", OTHER), Digest.of(b"nobody's")])
    return Aliased(NAME, "gold", digest), Expected(("alias",), f"{NAME}@gold")


def _aliases_what_ended(state: State, _rng: random.Random) -> tuple[Event, Expected]:
    return Aliased(NAME, "old", _by_version(state, "1.0.0")), Expected(("alias",), f"{NAME}@old")


def _retires_what_an_alias_needs(state: State, _rng: random.Random) -> tuple[Event, Expected]:
    return Retired(NAME, _by_version(state, "1.3.0")), Expected(("alias",), f"{NAME}@gold")


def _withdraws_a_base_in_use(_state: State, _rng: random.Random) -> tuple[Event, Expected]:
    return BaseWithdrawn(BASE.id), Expected(("base",), NAME)


def _approves_what_is_not_there(state: State, _rng: random.Random) -> tuple[Event, Expected]:
    event = Approved(NAME, Digest.of(b"nobody's"))
    return event, Expected(("entry",), f"entry {state.head.seq + 1}")


def _unknown_kind(place: Place, rng: random.Random) -> Expected:
    """Chained as it should be, by a Foreword we do not know or by somebody who made it up."""
    head, kind = place.state.head, rng.choice(["promoted", "", "approved "])
    body = rng.choice(["{}", "[]", "null", "no json"])
    texts = ("2026-06-01T12:00:00Z", "mallory", "", kind, body)
    hashed = tagged("foreword.journal/1", (head.seq + 1).to_bytes(8, "big"),
                    bytes.fromhex(head.hash.hex), *(text.encode() for text in texts)).hex()  # fmt: skip
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        connection.execute(
            "INSERT INTO journal (seq, previous, time, actor, reason, kind, body, hash) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (head.seq + 1, head.hash.hex, *texts, hashed),
        )
        connection.commit()
    return Expected(("entry",), f"entry {head.seq + 1}")


def _published(
    change: Callable[[VersionFacts, Claim, random.Random], Published], code: str
) -> Fault:
    """A version whose blobs are there and whose entry tells something else of them."""

    def fault(place: Place, rng: random.Random) -> Expected:
        artifact = sample(version="9.0.0", tensors=numbers(rng.random()))
        envelope = signed(artifact, key("ana"))
        with Registry.open(place.layout.directory) as registry:
            for data in (artifact.manifest_bytes, artifact.tensor_bytes, envelope):
                registry.blobs.put(data)
            claim = Claim(Digest.of(envelope), "sign", None, (key("ana").id,))
            event = change(facts_of(artifact.manifest, artifact.digest), claim, rng)
            registry.journal.append(registry.refresh().head, event, by("mallory"))
        return Expected((code,), f"{event.name}@{event.facts.version}")

    return fault


def _other_facts(facts: VersionFacts, claim: Claim, rng: random.Random) -> Published:
    changes = [
        {"version": "9.0.1"}, {"length": facts.length + 1}, {"dtype": "float16"},
        {"created": "2025-01-01T00:00:00Z"}, {"base": OTHER_BASE.ref},
    ]  # fmt: skip
    return Published(replace(facts, **rng.choice(changes)), (claim,))  # type: ignore[arg-type]


def _other_claim(facts: VersionFacts, claim: Claim, rng: random.Random) -> Published:
    changes = [
        {"kind": "evaluation", "verdict": "pass"}, {"signers": (key("ben").id,)},
        {"signers": (*claim.signers, key("ben").id)},
    ]  # fmt: skip
    return Published(facts, (replace(claim, **rng.choice(changes)),))  # type: ignore[arg-type]


def _older_version(facts: VersionFacts, claim: Claim, rng: random.Random) -> Published:
    version = rng.choice(["1.4.0", "1.3.9", "0.0.1", "1.4.0-rc.1"])
    return Published(replace(facts, version=version), (claim,))


# Around it.


def _open_place(place: Place, rng: random.Random) -> Expected:
    path = rng.choice([place.layout.directory, place.layout.directory / FILE, place.database])
    path.chmod(path.stat().st_mode | 0o002)
    return Expected(("mode",), str(path))


def _distrusted(place: Place, rng: random.Random) -> Expected:
    """The policy has changed since the versions were published."""
    state = place.state
    live = [version for version in state.versions.values() if version.status == "live"]
    version = rng.choice(live)
    changes = [
        POLICY.with_status(key("ana").id, "revoked"),
        POLICY.with_revoked(version.digest, "it lied"),
        replace(POLICY, floors={version.name: "99.0.0"}),
        replace(POLICY, expires=place.now - timedelta(days=1)),
        TrustPolicy(),
    ]
    place.policy = rng.choice(changes)
    return Expected(("trust",), f"{version.name}@{version.version}")


def _age(path: Path) -> None:
    os.utime(path, (OLD.timestamp(), OLD.timestamp()))


FAULTS: dict[str, Fault] = {
    "blob gone": _blob_fault(lambda path, _: path.unlink(), "blob_missing"),
    "blob with one bit flipped": _blob_fault(_flip, "blob_damaged"),
    "blob cut off": _blob_fault(_truncate, "blob_damaged"),
    "blob with more at its end": _blob_fault(_extend, "blob_damaged"),
    "blob with the bytes of another": _blob_fault(_other_bytes, "blob_damaged"),
    "blob replaced by a link": _blob_fault(_link, "blob_damaged"),
    "blob replaced by a directory": _blob_fault(_directory, "blob_damaged"),
    "blob replaced by a pipe": _blob_fault(_pipe, "blob_damaged"),
    "blob under another name": _blob_fault(_renamed, "blob_missing"),
    "blob in the wrong shard": _misplaced,
    "blob that everybody may write to": _open_to_all,
    "blob that was collected": _collected,
    "blob that nothing needs": _orphan,
    "something that is no blob": _stranger,
    "write that was cut short": _draft,
    "all blobs gone": _no_blobs,
    "entry with other content": _column("time", "actor", "reason", "kind", "body", "hash"),
    "entry behind another one": _column("previous"),
    "entry under another name": _column("name"),
    "entry left out": _left_out,
    "entries swapped": _swapped,
    "end cut off": _cut,
    "entry that does not follow": _unchained,
    "entry before the first": _before_the_first,
    "page overwritten": _page,
    "database gone": _no_database,
    "schema of another version": _schema,
    "trigger changed": _trigger,
    "release of what ended": _forged(_releases_what_ended),
    "retirement of what serves": _forged(_retires_what_serves),
    "release of another name's version": _forged(_releases_anothers),
    "release of another name's version once": _released_anothers_once,
    "alias for another name's version": _forged(_aliases_anothers),
    "alias for what ended": _forged(_aliases_what_ended),
    "retirement of what an alias stands for": _forged(_retires_what_an_alias_needs),
    "base withdrawn in use": _forged(_withdraws_a_base_in_use),
    "approval of what is not there": _forged(_approves_what_is_not_there),
    "entry of an unknown kind": _unknown_kind,
    "entry with other facts than the manifest": _published(_other_facts, "facts"),
    "entry with other claims than the envelope": _published(_other_claim, "claim"),
    "version that is not newer": _published(_older_version, "order"),
    "place that everybody may write to": _open_place,
    "policy that trusts it no more": _distrusted,
}
"""Name to fault; every kind of thing that can be wrong has one."""
