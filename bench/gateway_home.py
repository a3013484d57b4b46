"""A home for the servers of `bench/gateway.py`: a registry with released prefixes, a policy and a key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from serving_engine import random_prefix

from foreword.artifact import PromptFormat, pack
from foreword.prefix.base_model import BaseModel
from foreword.prefix.probe import make_probes, probe_inputs
from foreword.registry.entries import By
from foreword.registry.facts import Base
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.serving.gateway.access.keys import issue
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.tenants import Tenant
from foreword.signing.envelope import sign
from foreword.signing.keys import SigningKey, new_key
from foreword.signing.policy import TrustedKey, TrustPolicy
from foreword.signing.statement import Statement

TENANT = "bench"
LENGTH = 16
"""Virtual tokens of each prefix."""


@dataclass(frozen=True)
class Home:
    directory: Path
    key: str
    names: tuple[str, ...]
    """Of released prefixes."""


def make_home(directory: Path, base: BaseModel, prefixes: int) -> Home:
    """`FOREWORD_HOME` has to name the directory already."""
    directory.mkdir(parents=True, exist_ok=True)
    signer = new_key("bench")
    policy = TrustPolicy(keys={signer.public.id: TrustedKey(signer.public, "bench")})
    (directory / "trust.toml").write_bytes(policy.to_toml())
    key, record = issue(TENANT, datetime.now(UTC))
    AccessStore().change(
        lambda table: table.with_tenant(Tenant(TENANT, base=True)).with_key(record), by=_by()
    )
    init(Layout(directory / "registry"))
    with Registry.open() as registry:
        registry.declare_base(Base(replace(base.ref, id="demo"), base.geometry), by=_by())
        names = tuple(
            _release(registry, base, signer, policy, number) for number in range(prefixes)
        )
    return Home(directory, key, names)


def _release(
    registry: Registry, base: BaseModel, signer: SigningKey, policy: TrustPolicy, number: int
) -> str:
    kv = random_prefix(base, number, LENGTH)
    probes = make_probes(base, kv, probe_inputs(base)) if number == 0 else ()
    made = pack(
        name=f"{TENANT}/p{number}", version="1.0.0", created="2026-01-31T12:00:00Z",
        base=replace(base.ref, id="demo"), geometry=kv.geometry, length=LENGTH, dtype="float32",
        prompt=PromptFormat("template", "{input}\n"), training={}, probes=probes,
        tensors=kv.to_bytes(),
    )  # fmt: skip
    envelope = sign(Statement.about(made, datetime.now(UTC)).to_bytes(), signer).to_bytes()
    registry.publish(made.manifest_bytes, made.tensor_bytes, [envelope], policy=policy, by=_by())
    registry.release(f"{made.manifest.name}@1.0.0", policy=policy, by=_by())
    return made.manifest.name


def _by() -> By:
    return By("bench", datetime.now(UTC))
