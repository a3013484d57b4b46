"""`foreword keys`: whose word we can give, and whose word we take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foreword.cli.output import out, print_json

if TYPE_CHECKING:
    from foreword.signing.keys import PublicKey
    from foreword.signing.policy import Status, TrustPolicy

app = typer.Typer(
    help="Keys: make one, show them, say whose signatures count.", no_args_is_help=True
)
Tenants = Annotated[
    list[str] | None,
    typer.Option("--tenant", help="Tenant it may speak for; repeat it. Without it: every tenant."),
]
Which = Annotated[str, typer.Argument(help="The key's id, or its name in trust.toml.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the key, such as your own.")],
    scheme: Annotated[
        Literal["ed25519", "ecdsa-sha2-nistp256"], typer.Option(help="Kind of signature.")
    ] = "ed25519",
    trust: Annotated[
        bool, typer.Option("--trust", help="Trust it for every tenant, as the first key is.")
    ] = False,
) -> None:
    """Make a key in FOREWORD_HOME; the first one also gets a trust.toml that trusts it."""
    from foreword.signing import keys, store
    from foreword.signing.policy import TrustedKey, TrustPolicy

    key = keys.new_key(name, scheme)
    path = keys.key_path(name)
    _say(f"key      {name} ({key.public.scheme}, {key.id})")
    _say(f"private  {path}, keep it to yourself")
    _say(f"public   {path.with_suffix('.pub')}, give it to those who verify")
    trusted = TrustedKey(key.public, name)
    first = store.create_policy(TrustPolicy().with_key(trusted))
    if trust and not first:
        store.change_policy(lambda policy: policy.with_key(trusted))
    if trust or first:
        _say(f"policy   {store.policy_path()} trusts it for every tenant")


@app.command()
def show(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the keys in FOREWORD_HOME with their ids."""
    from foreword.signing.keys import list_keys

    found = list_keys()
    if json:
        print_json([{"name": name, "id": key.id, "scheme": key.scheme, "public": key.pem}
                    for name, key in found])  # fmt: skip
    elif not found:
        _say("no keys yet; `foreword keys new NAME` makes one")
    for name, key in [] if json else found:
        _say(f"{name}\t{key.scheme}\t{key.id}")


@app.command()
def trust(
    key: Annotated[str, typer.Argument(help="A key's name, or a file with a public key.")],
    tenant: Tenants = None,
    may: Annotated[
        list[str] | None,
        typer.Option(help="`sign` or a kind of attestation; repeat it. Without it: all of them."),
    ] = None,
) -> None:
    """Add a key to trust.toml, or begin one with it."""
    from foreword.signing import store
    from foreword.signing.policy import EVERY, TrustedKey, TrustPolicy

    name, public = _public(key)
    trusted = TrustedKey(public, name, tuple(tenant or (EVERY,)), tuple(may or (EVERY,)))
    if not store.create_policy(TrustPolicy().with_key(trusted)):
        store.change_policy(lambda policy: policy.with_key(trusted))
    _say(f"trusted  {name} ({public.id}) for {', '.join(trusted.tenants)}")


@app.command()
def retire(key: Which) -> None:
    """Let a key vouch for what it signed, and for nothing new."""
    _set_status(key, "retiring")


@app.command()
def revoke(key: Which) -> None:
    """Stop believing a key, also what it signed before."""
    _set_status(key, "revoked")


def _say(line: str) -> None:
    out.print(line, markup=False, soft_wrap=True)


def _set_status(key: str, status: Status) -> None:
    from foreword.signing import store

    policy = store.change_policy(lambda old: old.with_status(_id(old, key), status))
    key_id = _id(policy, key)
    _say(f"{status:<9}{policy.keys[key_id].name} ({key_id})")


def _id(policy: TrustPolicy, key: str) -> str:
    """A name in the policy stands for the key's id."""
    return next((known.public.id for known in policy.keys.values() if known.name == key), key)


def _public(key: str) -> tuple[str, PublicKey]:
    from foreword.signing.files import read
    from foreword.signing.keys import MAX_PEM, PublicKey, load_public

    path = Path(key)
    if path.suffix != ".pub" and len(path.parts) == 1:
        return key, load_public(key)
    return path.stem, PublicKey.from_pem(read(path, MAX_PEM))
