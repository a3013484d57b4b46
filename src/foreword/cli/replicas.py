"""`foreword replicas`: which replicas have which prefixes, and how far each has read the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import print_json
from foreword.cli.registry import lines
from foreword.cli.registry.options import Json
from foreword.cli.served import read_key
from foreword.errors import UsageError

if TYPE_CHECKING:
    import httpx2

_MOST_BYTES = 256 << 20
_MOST_AT_ONCE = 16

Url = Annotated[
    list[str],
    typer.Option("--url", help="Admin address of a replica, http://HOST:PORT; repeat it."),
]
KeyFile = Annotated[Path, typer.Option("--key-file", help="File with an admin key.")]
Timeout = Annotated[
    float, typer.Option(min=0.1, max=600, help="Seconds that a replica may take for each answer.")
]


@dataclass(frozen=True)
class Release:
    """What a name gives at a replica."""

    stable: str | None
    canary: str | None
    versions: Mapping[str, str]
    """Digests by version."""


@dataclass(frozen=True)
class Replica:
    """What one replica said, or why it said nothing."""

    url: str
    problem: str = ""
    seq: int | None = None
    age: float | None = None
    """Seconds since it last read the journal; None if it never did."""
    names: Mapping[str, Release] = field(default_factory=dict)
    residents: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Line:
    """A version that some replica releases or has, and its state at each of them."""

    label: str
    digest: str
    at: tuple[str, ...]


def replicas(url: Url, key_file: KeyFile, timeout: Timeout = 5.0, json: Json = False) -> None:
    """Show which replicas have which prefixes. One that does not answer is shown as that."""
    import httpx2

    addresses = [_address(each) for each in dict.fromkeys(url)]
    headers = {"Authorization": f"Bearer {read_key(key_file, 'replicas.key')}"}
    with (
        httpx2.Client(headers=headers, timeout=timeout, trust_env=False) as client,
        ThreadPoolExecutor(min(len(addresses), _MOST_AT_ONCE)) as pool,
    ):
        found = list(pool.map(partial(_ask, client), addresses))
    compared = compare(found)
    if json:
        print_json(_to_json(found, compared))
    else:
        _tell(found, compared)


def compare(found: Iterable[Replica]) -> list[Line]:
    """A line for each released or resident version, by name, those of no known name last."""
    found = list(found)
    labels: dict[str, str] = {}
    for replica in found:
        for name, release in replica.names.items():
            labels |= _labels(name, release)
    wanted = {digest for each in found for release in each.names.values()
              for digest in (release.stable, release.canary) if digest}  # fmt: skip
    wanted = wanted.union(*(each.residents for each in found))
    order = sorted(
        wanted, key=lambda digest: (digest not in labels, labels.get(digest, ""), digest)
    )
    return [
        Line(labels.get(digest, "?"), digest, tuple(_at(replica, digest) for replica in found))
        for digest in order
    ]


def _labels(name: str, release: Release) -> dict[str, str]:
    return {digest: f"{name}@{version}" for version, digest in release.versions.items()}


def _at(replica: Replica, digest: str) -> str:
    """`resident` or `absent`, and the arm that it is there; `?` if nobody knows."""
    if replica.problem:
        return "?"
    here = "resident" if digest in replica.residents else "absent"
    arms = {
        arm
        for release in replica.names.values()
        for arm, released in (("stable", release.stable), ("canary", release.canary))
        if released == digest
    }
    return " ".join([here, *sorted(arms)])


# Asking.


def _ask(client: httpx2.Client, url: str) -> Replica:
    import httpx2

    try:
        residents = _read(client, f"{url}/admin/residents")
        return _replica(url, _read(client, f"{url}/admin/releases"), residents)
    except httpx2.HTTPError as e:
        return Replica(url, f"{type(e).__name__}: {str(e)[:200]}")
    except _OtherAnswerError as e:
        return Replica(url, str(e))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Replica(url, "it answers something else than Foreword's admin API")


class _OtherAnswerError(Exception):
    """A replica answers, but not with what was asked for."""


def _read(client: httpx2.Client, url: str) -> dict[str, Any]:
    import json

    with client.stream("GET", url) as response:
        data = bytearray()
        for part in response.iter_bytes():
            data += part
            if len(data) > _MOST_BYTES:
                raise _OtherAnswerError(f"more than {_MOST_BYTES} bytes came")
    body = json.loads(data)
    if response.status_code != 200:
        error = body["error"]
        raise _OtherAnswerError(
            f"{response.status_code} {str(error['code'])[:80]}: {str(error['message'])[:200]}"
        )
    return dict(body)


def _replica(url: str, releases: dict[str, Any], residents: dict[str, Any]) -> Replica:
    age = releases["age_seconds"]
    return Replica(
        url,
        seq=int(releases["seq"]),
        age=None if age is None else float(age),
        names={
            str(name): Release(each["stable"], each["canary"], dict(each["versions"]))
            for name, each in releases["names"].items()
        },
        residents=frozenset(str(each["digest"]) for each in residents["residents"]),
    )


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"--url is http://HOST:PORT or https://HOST:PORT, got {url[:80]!r}", code="replicas.url"
        )
    return url.rstrip("/")


# Telling.


def _tell(found: list[Replica], compared: list[Line]) -> None:
    lines.table(
        ("replica", "state", "journal", "read", "resident"),
        [
            (
                each.url,
                each.problem or "answers",
                "?" if each.seq is None else f"entry {each.seq}",
                _ago(each),
                "?" if each.problem else str(len(each.residents)),
            )
            for each in found
        ],
    )
    lines.table(
        ("prefix", "digest", *(each.url for each in found)),
        [(line.label, _short(line.digest), *line.at) for line in compared],
    )


def _ago(replica: Replica) -> str:
    if replica.problem:
        return "?"
    return "never" if replica.age is None else f"{replica.age:.1f} s ago"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _to_json(found: list[Replica], compared: list[Line]) -> dict[str, Any]:
    return {
        "replicas": [
            {
                "url": each.url,
                "problem": each.problem or None,
                "seq": each.seq,
                "age_seconds": each.age,
                "resident": len(each.residents),
            }
            for each in found
        ],
        "prefixes": [
            {
                "prefix": line.label,
                "digest": line.digest,
                "at": {each.url: at for each, at in zip(found, line.at, strict=True)},
            }
            for line in compared
        ],
    }
