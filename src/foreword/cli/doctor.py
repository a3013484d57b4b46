"""`foreword doctor`: what is installed, what the machine can do, what a base supports."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from foreword import __version__
from foreword.cli.output import out, print_json
from foreword.config import foreword_home

_PACKAGES = {
    "torch": "foreword[train]",
    "transformers": "foreword[train]",
    "safetensors": "foreword[train]",
    "gguf": "foreword[train]",
    "numba": "foreword[train]",
    "pyarrow": "foreword[train]",
    "datasets": "foreword[data]",
    "peft": "foreword[dev]",
}


def doctor(
    base: Annotated[
        str | None, typer.Option(help="Also load this base and say what it supports.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what works here and what to install for the rest."""
    facts = dict(_facts())
    if base is not None:
        facts |= _base_facts(base)
    if json:
        print_json(facts)
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        out.print(f"{name:<{width}}{value}", markup=False, soft_wrap=True)


def _facts() -> Iterator[tuple[str, str]]:
    yield "foreword", __version__
    yield "python", platform.python_version()
    for package, extra in _PACKAGES.items():
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, f"not installed; pip install '{extra}'"
    home = foreword_home()
    nearest = next(p for p in (home, *home.parents) if p.exists())
    yield "home", f"{home} ({shutil.disk_usage(nearest).free >> 30} GB free)"
    try:
        import torch
    except ImportError:
        return
    from foreword.serving.engine.model.between import native
    from foreword.tuning.memory import has_fast_bfloat16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield "device", f"{device.type}, {torch.get_num_threads()} threads"
    yield "kernels", "compiled" if native() else "torch's operations: no numba or no GNU OpenMP"
    yield "bfloat16", "fast" if has_fast_bfloat16(device) else "slow here; float32 is used"


def _base_facts(name: str) -> dict[str, str]:
    from foreword.cli.output import quiet_libraries
    from foreword.prefix.base_model import load_base
    from foreword.prefix.selfcheck import check_attachment

    quiet_libraries()
    base = load_base(name)
    check = check_attachment(base)
    layers = next(iter(base.geometry.sites.values()))
    shape = next(iter(layers.values()))
    verdict = "exact" if check.ok else "NOT usable: attached tokens change its outputs"
    return {
        "base": f"{base.ref.id} ({base.ref.architecture}, {base.kind})",
        "fingerprint": str(base.ref.fingerprint),
        "context": str(base.context or "no limit"),
        "sites": ", ".join(f"{s} {len(ls)} layers" for s, ls in base.geometry.sites.items()),
        "key/value": f"{shape.kv_heads} heads of {shape.key_dim}",
        "per token": f"{base.geometry.values_per_token() * 4:,} bytes in float32",
        "self-check": f"{verdict} (error {check.error:.1e}, allowed {check.tolerance:.0e})",
    }
