"""Line after line: a command, or a question whose answer is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from foreword.cli.chat.screen import show_one, show_two
from foreword.cli.chat.typing import Keyboard, lines_of_a_pipe
from foreword.cli.output import errors, out, visible
from foreword.client.chat.commands import HELP, Command, Unreadable, read_command
from foreword.errors import ForewordError, UsageError

if TYPE_CHECKING:
    from foreword.client.chat.session import Session


class Loop:
    """`require_model` raises if there is no such model."""

    def __init__(self, session: Session, require_model: Callable[[str], None]) -> None:
        self._session, self._require_model = session, require_model
        self._do: dict[str, Callable[[Command], None]] = {
            "prefix": self._prefix,
            "next": lambda command: self._say(f"now {session.next()}"),
            "side": self._side,
            "reset": self._reset,
            "help": self._help,
        }

    def run(self, at_terminal: bool) -> None:
        """Until the input ends or somebody leaves.

        Raises:
            ForewordError: in a pipe, whatever fails; at a terminal failures are told, and it goes on.
        """
        if at_terminal:
            self._say("Tab switches the prefix, /help tells the rest, Ctrl-D leaves")
        for line in self._lines(at_terminal):
            command = read_command(line)
            if isinstance(command, Command) and command.word == "quit":
                return
            try:
                self._take(line, command)
            except KeyboardInterrupt:
                self._say("stopped; it is not part of the conversation")
                if not at_terminal:
                    raise
            except ForewordError as e:
                if not at_terminal:
                    raise
                errors.print(f"error[{e.code}]: {visible(str(e))}", markup=False, soft_wrap=True)

    def _lines(self, at_terminal: bool) -> Iterator[str]:
        if not at_terminal:
            return lines_of_a_pipe()
        return Keyboard().lines(lambda: f"{' | '.join(self._session.active)}> ")

    def _take(self, line: str, command: Command | Unreadable | None) -> None:
        if isinstance(command, Unreadable):
            raise UsageError(command.reason, code="chat.command")
        if command is not None:
            self._do[command.word](command)
        elif line.strip():
            text = line.removeprefix("/") if line.startswith("//") else line
            askings = [self._session.ask(name, text) for name in self._session.active]
            if len(askings) == 1:
                show_one(askings[0])
            else:
                show_two(askings)

    def _prefix(self, command: Command) -> None:
        if not command.names:
            for name in self._session.models:
                active = "*" if name in self._session.active else " "
                out.print(f"{active} {visible(name)}", markup=False, soft_wrap=True)
            return
        self._require(command)
        self._session.use(*command.names)
        self._say(f"now {command.names[0]}")

    def _side(self, command: Command) -> None:
        if len(command.names) == 1:
            raise UsageError("expected /side A B, got one name", code="chat.command")
        self._require(command)
        self._session.use(*(command.names or self._session.active[:1]))
        self._say(f"now {' | '.join(self._session.active)}")

    def _require(self, command: Command) -> None:
        for name in command.names:
            self._require_model(name)

    def _reset(self, command: Command) -> None:
        self._session.reset()
        self._say("forgotten")

    def _help(self, command: Command) -> None:
        for text, meaning in HELP.items():
            out.print(f"{text:<14}{meaning}", markup=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        errors.print(visible(text), markup=False, soft_wrap=True, style="dim")
