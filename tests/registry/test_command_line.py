"""The command line on what a team uses, PostgreSQL and S3. The rest is in tests/cli."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foreword.artifact import write_artifact
from foreword.registry.objects import open_blobs
from foreword.registry.registry import Registry
from tests.artifact.samples import sample
from tests.cli.test_cli import foreword, one_line
from tests.registry.samples import BASE, by


def test_a_version_comes_and_goes_on_postgres_and_s3(
    postgres_url: str, s3_url: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"

    def ok(*words: str) -> Any:
        done = foreword("registry", *words, "--json", home=home)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    foreword("keys", "new", "ana", home=home)
    made = ok("init", "--database", postgres_url, "--blobs", s3_url)
    with Registry.open(made["directory"]) as opened:  # a model would have to be loaded for it
        opened.declare_base(BASE, by=by())
    for version in ("1.0.0", "1.1.0"):
        directory = str(write_artifact(sample(version=version), tmp_path / version))
        foreword("sign", directory, "--key", "ana", home=home)
        assert ok("publish", directory)["new"]
        assert not ok("publish", directory)["new"]
    assert len(list(open_blobs(s3_url).stored())) == 5, (
        "2 manifests, 2 signatures, the same tensors"
    )
    ok("release", "acme/support@1.0.0")
    ok("release", "acme/support@1.1.0", "--share", "0.25")
    ok("shift", "acme/support", "--share", "1")
    assert ok("resolve", "acme/support")["version"] == "1.1.0"
    assert ok("rollback", "acme/support")["entry"]["kind"] == "rolled_back"
    assert ok("resolve", "acme/support")["version"] == "1.0.0"
    ok("revoke", "acme/support@1.1.0", "--reason", "it swears")
    done = foreword("registry", "resolve", "acme/support@1.1.0", home=home)
    assert "it swears" in one_line(done, "registry.revoked", 8)
    assert [name["release"]["stable"]["version"] for name in ok("list")["names"]] == ["1.0.0"]
    assert ok("fsck")["sound"]
