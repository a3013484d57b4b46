"""R03: no loader that runs code is reachable, and no file of a format that can hold code ever runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import foreword
from foreword.artifact import open_artifact, write_artifact
from foreword.artifact.package import MANIFEST, TENSORS
from foreword.artifact.peft import read_peft
from foreword.errors import ForewordError
from tests.artifact.samples import GEOMETRY, sample
from tests.reliability.abuse import sealed
from tests.reliability.payloads import payloads
from tests.reliability.report import ROOT, Goals
from tests.reliability.unsafe import findings

pytestmark = pytest.mark.reliability("R03")
SOURCE = Path(foreword.__file__).parent
OWN_TEMPLATES = {
    SOURCE / "tuning" / "report.py",
    SOURCE / "evaluation" / "scorecards" / "html.py",
    SOURCE / "serving" / "gateway" / "prompting.py",
}
"""Two render a template of the package, with escaping. The third catches what the chat template of the
base raises, which transformers renders in a sandbox and the operator chose."""
Reader = Callable[[Path], Any]


def test_no_module_uses_a_loader_that_runs_code(goals: Goals) -> None:
    files = sorted(SOURCE.rglob("*.py"))
    found = [
        f"{file.relative_to(SOURCE)}:{finding}"
        for file in files
        for finding in findings(file.read_text(), own_templates=file in OWN_TEMPLATES)
    ]
    goals.goal("no module loads, evaluates or runs what it read, or relies on an assert",
               value="; ".join(found) or 0, passed=not found, count=len(files))  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import a, pickle as p", "from pickle import loads", "import _pickle",
        "import dill.session", "def f():\n    import marshal", "import torch as t\nt.load(x)",
        "from torch import load\nload(x)", "import torch\ng = torch.load", "import numpy as np\nnp.load(x)",
        "import numpy.lib.format as f\nf.read_array(x)", "import yaml\nyaml.load(x, Loader=L)",
        "from yaml import unsafe_load", "import yaml\nclass L(yaml.UnsafeLoader): ...", "eval(x)",
        "exec(x)", "list(map(eval, x))", "__import__(x)", "import os\nos.system(x)",
        "from subprocess import run\nrun(x, shell=True)", "run(x, shell=y)", "f(x, weights_only=False)",
        "f(x, trust_remote_code=True)", "f(x, allow_pickle=flag)", "import jinja2",
        "from jinja2.sandbox import SandboxedEnvironment", "t.apply_chat_template(m, chat_template=x)",
        "import importlib\nimportlib.import_module('pickle')",
        "from importlib import import_module as i\ni('dill.x')", "assert x",
    ],
)  # fmt: skip
def test_the_search_finds_each_way_to_write_it(source: str) -> None:
    assert findings(source)


def test_the_search_leaves_harmless_code_alone() -> None:
    source = (
        "import re, yaml, json, torch, subprocess\nfrom safetensors.torch import load\n"
        "model.eval()\nre.compile('x')\nyaml.safe_load(x)\njson.load(x)\nload(x)\npickle = 1\n"
        "subprocess.run(x, shell=False)\nclass L(yaml.SafeLoader): ...\nf(weights_only=True)\n"
    )
    assert findings(source) == []


def test_no_format_that_holds_code_ever_runs(goals: Goals, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    files = payloads(marker)
    for extension, payload in files.items():
        payload.careless(payload.data)
        assert marker.is_dir(), f"the payload {extension} is live"
        marker.rmdir()
    refused, others = 0, []
    for extension, payload in files.items():
        for name, read, path in readers(tmp_path / extension[1:], extension, payload.data):
            try:
                read(path)
                others.append(f"{extension} {name}: accepted")
            except ForewordError:
                refused += 1
            if marker.exists():
                others.append(f"{extension} {name}: ran")
                marker.rmdir()
    goals.goal("12 of 12 formats are refused wherever they lie, and none runs",
               value="; ".join(others) or f"{refused} refusals", passed=not others,
               count=len(files))  # fmt: skip


def readers(root: Path, extension: str, data: bytes) -> Iterator[tuple[str, Reader, Path]]:
    """Every place where a file could come into a reader's way, with that reader."""
    root.mkdir()
    alone = root / f"prefix{extension}"
    alone.write_bytes(data)
    yield "instead of an artifact", open_artifact, alone
    yield "instead of an adapter", adapter, alone
    beside = write_artifact(sample(), root / "beside")
    (beside / f"prefix{extension}").write_bytes(data)
    yield "beside an artifact", open_artifact, beside
    for name in (MANIFEST, TENSORS):
        inside = write_artifact(sample(), root / f"as-{name}")
        (inside / name).write_bytes(data)
        yield f"as {name}", open_artifact, inside
    vouched = write_artifact(sample(), root / "vouched")
    for name, part in zip((MANIFEST, TENSORS), sealed(data.ljust(1024, b"\0")).parts, strict=True):
        (vouched / name).write_bytes(part)
    yield "as tensors the manifest vouches for", open_artifact, vouched
    for name in (f"adapter_model{extension}", "adapter_model.safetensors", "adapter_config.json"):
        directory = root / f"adapter-{name}"
        directory.mkdir()
        config = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}
        (directory / "adapter_config.json").write_text(json.dumps(config))
        (directory / name).write_bytes(data)
        yield f"as {name}", adapter, directory


def adapter(directory: Path) -> Any:
    return read_peft(directory, GEOMETRY)


LOADS = """
import pickle, sys
from collections import Counter
from foreword.artifact import open_artifact
from foreword.errors import ForewordError
from foreword.prefix.kv import PrefixKV

def load(path):
    try: return PrefixKV.from_artifact(open_artifact(path))
    except ForewordError: return None

paths, seen, watching = sys.argv[1:], Counter(), False
sys.addaudithook(lambda event, _: seen.update([event]) if watching else None)
results = [load(path) for path in paths]  # libraries are loaded by now
watching = True
for i in range(1000): load(paths[i % len(paths)])
watching = False
during, watching = dict(seen), True
pickle.loads(pickle.dumps(Counter))
watching = False
print(sum(result is not None for result in results), "pickle.find_class" in seen)
print(*sorted(during))
"""
CODE_RUNS = {"pickle.find_class", "marshal.load", "marshal.loads", "code.__new__", "compile", "exec",
             "import", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
             "subprocess.Popen", "ctypes.dlopen", "socket.connect"}  # fmt: skip


def test_a_thousand_loads_unpickle_and_run_nothing(goals: Goals, tmp_path: Path) -> None:
    good = write_artifact(sample(), tmp_path / "good")
    pickled = payloads(tmp_path / "marker")[".pkl"].data
    hostile = [
        p for _, read, p in readers(tmp_path / "bad", ".pkl", pickled) if read is open_artifact
    ]
    run = subprocess.run(
        [sys.executable, "-c", LOADS, str(good), *map(str, hostile)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    control, events = run.stdout.splitlines()
    assert control == "1 True", "the good one is loaded, and the hook would have seen an unpickler"
    assert "open" in events.split(), "the hook sees the loads"
    ran = CODE_RUNS & set(events.split())
    goals.goal("1,000 loads unpickle, import, compile and start nothing",
               value=", ".join(sorted(ran)) or 0, passed=not ran, count=1_000)  # fmt: skip
