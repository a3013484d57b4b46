"""`foreword chat` in a pipe and at a terminal: with a scripted backend, and with a server of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreword.errors import Overloaded
from foreword.serving.contract import GenerateRequest
from tests.cli.inside import Done, inside
from tests.cli.test_cli import RUN
from tests.gateway.edge_server import until
from tests.gateway.front_door import NAME, OTHER, FrontDoor, front_door
from tests.gateway.served import Ground
from tests.serving.scripted import text_of

TOKENS = "--max-tokens", "4"
RECEIPT = re.compile(r"-- acme/support@1\.0\.0  sha256:[0-9a-f]{12}  (stable|pinned)  4 tokens")


@pytest.fixture(scope="module")
def shared() -> Iterator[FrontDoor]:
    with front_door() as made:
        yield made


@pytest.fixture
def door(shared: FrontDoor) -> FrontDoor:
    shared.backend.asked.clear()
    shared.backend.say = None
    return shared


def piped(door: FrontDoor, said: str, *options: str) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_URL", door.url)
        patch.setenv("FOREWORD_API_KEY", door.keys["acme"])
        return inside("chat", *TOKENS, *options, said=said)


def prompts(door: FrontDoor) -> list[str]:
    """What the backend read, as text; every letter of the tiny tokenizer is a token."""
    spoken = door.front.prompter
    return [b"".join(map(spoken.spell, asked.prompt)).decode() for asked in door.backend.asked]


def test_every_answer_is_the_servers_and_has_its_receipt(door: FrontDoor) -> None:
    done = piped(door, "hi\n/next\nhi\n/prefix acme/support@1.0.0\nyou\n//next\n/quit\nnever\n")
    assert done.returncode == 0, done.stderr
    assert len(door.backend.asked) == 4
    lines = done.stdout.splitlines()
    assert lines[::2] == [text_of(asked) for asked in door.backend.asked]
    assert [bool(RECEIPT.match(line)) for line in lines[1::2]] == [True, False, True, True]
    assert lines[3].startswith("-- base  4 tokens")
    assert prompts(door)[3] == "/next\n"  # two slashes stand for one that is meant


def test_each_model_has_its_own_conversation(door: FrontDoor) -> None:
    said = "/prefix base\nhi\n/prefix acme/support\nab\n/prefix base\nyou\n/reset\nhi\n"
    assert piped(door, said).returncode == 0
    first, _, second, third = prompts(door)
    answer = text_of(door.backend.asked[0])
    assert first == third == "<s>user:hi</s><s>assistant:"
    assert second == f"<s>user:hi</s><s>assistant:{answer}</s><s>user:you</s><s>assistant:"


def test_a_prefix_that_reads_one_message_gets_one(door: FrontDoor) -> None:
    assert piped(door, "one\ntwo\nthree\n").returncode == 0
    assert prompts(door) == ["one\n", "two\n", "three\n"]


def test_two_are_asked_side_by_side(door: FrontDoor) -> None:
    done = piped(door, "hi\n/side\nhi\n", "--side", "--prefix", NAME, "--prefix", "base")
    assert done.returncode == 0, done.stderr
    by_model = {asked.adapters.prefix is not None: asked for asked in door.backend.asked[:2]}
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"[{NAME}]", text_of(by_model[True])]
    assert lines[3:5] == ["[base]", text_of(by_model[False])]
    assert len(lines) == 8  # the third question has one answer


@pytest.mark.parametrize(
    ("said", "options", "code", "exit_code"),
    [
        ("hi\n", ("--prefix", OTHER), "model.not_found", 9),
        (f"/prefix {OTHER}\n", (), "model.not_found", 9),
        ("/nxt\n", (), "chat.command", 2),
        ("hi\n", ("--url", "http://127.0.0.1:9"), "client.unreachable", 9),
        ("hi\n", ("--url", "ftp://here"), "client.url", 2),
        ("hi\n", ("--base", "demo", "--url", "http://127.0.0.1:9"), "usage", 2),
    ],
)
def test_what_goes_wrong_in_a_pipe_ends_it(
    door: FrontDoor, said: str, options: tuple[str, ...], code: str, exit_code: int
) -> None:
    done = piped(door, said, *options)
    assert done.returncode == exit_code
    assert done.stderr.splitlines()[-1].startswith(f"error[{code}]: ")


def test_side_by_side_in_a_pipe_both_are_told_before_the_error(door: FrontDoor) -> None:
    def base_is_away(request: GenerateRequest) -> Overloaded | None:
        return None if request.adapters.prefix else Overloaded("full")

    door.backend.fails = base_is_away
    try:
        done = piped(door, "hi\n", "--side", "--prefix", "base", "--prefix", NAME)
    finally:
        door.backend.fails = lambda request: None
    assert done.returncode == 9
    told = [line for line in done.stdout.splitlines() if line.startswith(("[", "error[", "--"))]
    assert [told[0], told[2]] == ["[base]", f"[{NAME}]"]
    assert told[1].startswith("error[serving.overloaded]: ")
    assert RECEIPT.match(told[3])
    assert done.stderr.startswith("error[serving.overloaded]")


def test_an_answer_cannot_steer_the_terminal(door: FrontDoor) -> None:
    def steers(request: GenerateRequest, index: int) -> list[str]:
        return ["a\x1b[2J", "[bold]b[/bold]", "\nc"]

    door.backend.say = steers
    done = piped(door, "hi\n")
    assert done.stdout.startswith("a\\x1b[2J[bold]b[/bold]\nc\n-- acme/support@1.0.0")


class Terminal:
    """A chat at a terminal of its own."""

    def __init__(self, door: FrontDoor, *options: str) -> None:
        self.process, self._side = pty.fork()
        if not self.process:
            given = {"FOREWORD_URL": door.url, "FOREWORD_API_KEY": door.keys["acme"]}
            words = [sys.executable, "-c", RUN, "chat", *TOKENS, *options]
            # Whoever runs the tests in the background may have Ctrl-C ignored, which is inherited.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(sys.executable, words, {**os.environ, "TERM": "xterm", **given})  # noqa: S606
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def see(self, wanted: str, seconds: float = 20.0) -> str:
        """Wait until it is there; gives what came up to it and drops that."""
        end = time.monotonic() + seconds
        while wanted not in self.text:
            ready, _, _ = select.select([self._side], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"{wanted!r} did not come, but {self.text!r}")
            self.text += os.read(self._side, 65_536).decode(errors="replace")
        before, _, self.text = self.text.partition(wanted)
        return before

    def ended(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_at_a_terminal_a_key_switches_and_keeps_what_was_typed(door: FrontDoor) -> None:
    at = Terminal(door)
    at.see("acme/support> ")
    at.type("hi y\t")  # Tab in the middle of a line
    at.see("now base")
    at.see("base> ")
    at.type("ou\r")
    at.see("-- base  4 tokens")
    assert prompts(door) == ["<s>user:hi you</s><s>assistant:"]
    at.see("base> ")
    at.type("/prefix globex/secret\r")
    at.see("error[model.not_found]")
    at.see("base> ")
    at.type("/side acme/support base\r")
    at.see("acme/support | base> ")
    at.type("ab\r")
    at.see("-- acme/support@1.0.0")
    at.see("acme/support | base> ")
    at.type("\x04")
    assert at.ended() == 0


def test_ctrl_c_ends_an_answer_and_not_the_chat(door: FrontDoor) -> None:
    door.backend.pause = 0.2
    try:
        at = Terminal(door, "--max-tokens", "300")
        at.see("acme/support> ")
        at.type("hi\r")
        at.see(" t")
        at.type("\x03")
        at.see("stopped")
        at.see("acme/support> ")
        # Before the rest comes without a pause, and is all said when the gateway sees who left.
        until(lambda: door.backend.asked[-1].id in door.backend.cancelled)
    finally:
        door.backend.pause = 0.0
    at.type("/quit\r")
    assert at.ended() == 0


def test_a_server_of_its_own(ground: Ground, model: Path) -> None:
    ground.publish(1, "1.0.0")
    command = [sys.executable, "-c", RUN, "chat", "--base", str(model), *TOKENS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as chat:  # fmt: skip
        assert chat.stdin
        assert chat.stdout
        assert chat.stderr
        chat.stdin.write(f"/prefix {NAME}@1.0.0\nab\n")
        chat.stdin.flush()
        chat.stdout.readline()
        assert chat.stdout.readline().startswith("-- acme/support@1.0.0  sha256:")
        chat.send_signal(signal.SIGTERM)  # its server ends with it, however it ends
        assert chat.wait(20) == 128 + signal.SIGTERM
        started = re.findall(r"http://[0-9.:]+", chat.stderr.read())
    assert len(started) == 1
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(["pgrep", "-f", f"serve .*--base {model}"], check=True)
