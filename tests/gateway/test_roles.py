"""Gateway and engine in two processes: the same answers as in one, and what happens when one is away."""

from __future__ import annotations

import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from foreword.artifact import Digest
from foreword.errors import CompatibilityError, ConfigError
from foreword.prefix.files import identify
from foreword.serving.server.gateway_alone import tokenizer_of
from foreword.serving.server.secret import VARIABLE, secret_of
from foreword.serving.server.settings import LinkSettings, ServeSettings, check
from tests.gateway.edge_server import until
from tests.gateway.served import (
    FOREWORD,
    NAME,
    Ground,
    Process,
    ask,
    by,
    free_port,
    save_model,
    serving,
    streaming,
)
from tests.serving.prefix_samples import POLICY

CONTEXT = 16_000
"""Of a model whose answers can last."""
_NO_TORCH = ("torch", "torchgen", "functorch", "triton")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("long") / "model", context=CONTEXT)


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Our command, where everything is installed but torch."""
    site = tmp_path_factory.mktemp("site")
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if each.suffix != ".pth" and not each.name.split("-")[0].startswith(_NO_TORCH):
            (site / each.name).symlink_to(each)
    src = Path(__file__).parents[2] / "src"
    code = (
        f"import sys; sys.path[:0] = [{str(src)!r}, {str(site)!r}]\n"
        "from foreword.cli.main import main\n"
        "import importlib.util as found; assert found.find_spec('torch') is None\n"
        "main()"
    )
    return (sys.executable, "-S", "-c", code)


@contextmanager
def engine(model: Path, port: int, *options: str) -> Iterator[Process]:
    with serving(
        model, "--role", "engine", *options, port=port, ready="metrics and health"
    ) as started:
        yield started


@contextmanager
def gateway(
    tokenizer: Path, engine_port: int, command: tuple[str, ...] = FOREWORD
) -> Iterator[Process]:
    with serving(
        tokenizer, "--role", "gateway", "--engine", f"http://127.0.0.1:{engine_port}",
        command=command, ready="its engine is at",
    ) as started:  # fmt: skip
        yield started


def test_two_processes_answer_as_one_and_outlive_each_other(
    ground: Ground, model: Path, tmp_path: Path, without_torch: tuple[str, ...]
) -> None:
    one, two = ground.publish(1, "1.0.0"), ground.publish(2, "2.0.0")
    ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
    tokenizer = tmp_path / "tokenizer-only"
    shutil.copytree(model, tokenizer, ignore=shutil.ignore_patterns("*.safetensors"))
    port = free_port()
    with ExitStack() as opened, ThreadPoolExecutor(1) as beside:
        started = beside.submit(lambda: opened.enter_context(engine(model, port)))
        front = opened.enter_context(gateway(tokenizer, port, without_torch))  # waits for it
        first = started.result(90)
        said = ask(front, ground)
        assert said.status_code == 200, said.text
        assert said.json()["foreword"]["digest"] == str(one)
        assert said.json()["foreword"]["base"] == str(ground.base.ref.fingerprint)
        assert _residents(front, ground) == {str(one)}
        ground.registry.release(NAME + "@2.0.0", policy=POLICY, by=by())
        began = time.monotonic()
        until(lambda: ask(front, ground).json()["foreword"]["digest"] == str(two), 5)
        assert time.monotonic() - began < 2
        assert str(two) in _residents(front, ground)
        assert "prefix_warm 2.0" in httpx2.get(f"{first.admin_url}/metrics").text
        assert httpx2.get(f"{first.admin_url}/admin/residents").status_code == 404
        assert httpx2.get(f"{first.url}/engine/v1/health").status_code == 401
        _an_engine_that_dies_is_told(front, ground, first)
        opened.enter_context(engine(model, port))
        until(lambda: httpx2.get(f"{front.url}/readyz").status_code == 200, 5)
        assert ask(front, ground).json()["foreword"]["digest"] == str(two)
        assert front.end() == 0


def _residents(front: Process, ground: Ground) -> set[str]:
    """As `foreword replicas` sees them, once the gateway has looked again."""
    time.sleep(0.6)
    headers = {"Authorization": f"Bearer {ground.admin}"}
    said = httpx2.get(f"{front.admin_url}/admin/residents", headers=headers).json()
    return {each["digest"] for each in said["residents"]}


def _an_engine_that_dies_is_told(front: Process, ground: Ground, first: Process) -> None:
    with streaming(front, ground) as lines:
        next(lines)
        first.running.kill()
        rest = list(lines)
    assert '"code":"engine.unreachable"' in "".join(rest)
    assert "data: [DONE]" not in rest
    refused = ask(front, ground)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine.unreachable")
    assert int(refused.headers["retry-after"]) >= 1
    until(lambda: httpx2.get(f"{front.url}/readyz").status_code == 503, 5)
    assert httpx2.get(f"{front.url}/readyz").json()["missing"] == ["engine"]
    assert httpx2.get(f"{front.url}/livez").status_code == 200  # starting it anew would not help
    details = httpx2.get(f"{front.admin_url}/readyz").json()["parts"]["engine"]
    assert details["detail"] == "it does not answer (ConnectError)"


def test_an_engine_that_is_told_to_stop_lets_its_streams_end(ground: Ground, model: Path) -> None:
    port = free_port()
    with engine(model, port, "--grace", "0.3") as only, gateway(model, port) as front:
        with streaming(front, ground, model="base", max_tokens=15_000) as lines:
            next(lines)
            only.running.send_signal(signal.SIGTERM)
            until(lambda: ask(front, ground, "base").status_code == 503, 5)
            rest = list(lines)
        assert '"code":"serving.cancelled"' in "".join(rest)
        assert only.running.wait(20) == 0
        assert any("stopping: 1 requests" in line for line in only.lines)


def test_a_gateway_takes_the_tokenizer_of_its_engine_and_no_other(tmp_path: Path) -> None:
    here = save_model(tmp_path / "here")
    same = identify(here)
    assert tokenizer_of(str(here), same).get_vocab()
    for other in (
        replace(same, fingerprint=Digest.of(b"other weights")),
        replace(same, tokenizer=Digest.of(b"other words")),
        replace(same, tokenizer=None),
    ):
        with pytest.raises(CompatibilityError) as refused:
            tokenizer_of(str(here), other)
        assert refused.value.code == "serve.base"
    # Who has no weights goes by the tokenizer.
    (here / "model.safetensors").unlink()
    tokenizer_of(str(here), replace(same, fingerprint=Digest.of(b"other weights")))


@pytest.mark.parametrize(
    "settings",
    [
        ServeSettings(role="gateway"),
        ServeSettings(role="engine", engine=LinkSettings(url="http://127.0.0.1:8100")),
        ServeSettings(engine=LinkSettings(url="http://127.0.0.1:8100")),
        ServeSettings(role="engine", open=True),
    ],
)
def test_roles_and_their_options_go_together(settings: ServeSettings) -> None:
    with pytest.raises(ConfigError) as refused:
        check(settings)
    assert refused.value.code == "serve.role"


def test_the_secret_is_given_or_made_where_only_this_machine_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    here, there = (LinkSettings(url=f"http://{host}:8100") for host in ("127.0.0.1", "10.0.0.5"))
    one, other = ServeSettings(role="engine"), ServeSettings(role="gateway", engine=here)
    for settings in (
        ServeSettings(role="gateway", engine=there),
        ServeSettings(role="engine", host="0.0.0.0"),  # noqa: S104
    ):
        with pytest.raises(ConfigError) as refused:
            secret_of(settings)
        assert refused.value.code == "serve.secret"
    made = secret_of(other).headers
    assert secret_of(one).headers == made == secret_of(other).headers
    assert (tmp_path / "serve" / "engine.secret").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv(VARIABLE, "from-the-environment-1")
    assert secret_of(one).headers["Authorization"] == "Bearer from-the-environment-1"
    (tmp_path / "given").write_text("from-a-file-12345678\n")
    link = LinkSettings(secret_file=tmp_path / "given")
    given = secret_of(ServeSettings(role="engine", host="0.0.0.0", engine=link))  # noqa: S104
    assert given.headers["Authorization"] == "Bearer from-a-file-12345678"
    (tmp_path / "given").write_text("short")
    with pytest.raises(ConfigError, match="at least 16"):
        secret_of(ServeSettings(role="engine", engine=link))
