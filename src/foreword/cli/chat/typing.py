"""Where lines come from: a keyboard with history and a key that switches, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

_SWITCH = "/next"
_KEYS = (r'"\t"', r'"\C-n"')
_MACRO = rf'"\C-a{_SWITCH} \C-m"'
"""What the keys type: the command in front of what stands there already, and return."""


def lines_of_a_pipe() -> Iterator[str]:
    for line in sys.stdin:
        yield line.rstrip("\n")


class Keyboard:
    """Lines as somebody types them. What was typed before the switch key is not lost."""

    def __init__(self) -> None:
        import readline

        self._readline = readline
        self._kept = ""
        readline.set_auto_history(False)
        if "libedit" not in (readline.__doc__ or ""):  # it has no such macros; /next does the same
            for key in _KEYS:
                readline.parse_and_bind(f"{key}: {_MACRO}")
        readline.set_startup_hook(self._insert)

    def lines(self, prompt: Callable[[], str]) -> Iterator[str]:
        """Until Ctrl-D; Ctrl-C empties the line."""
        while True:
            try:
                line = input(prompt())
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                continue
            if line.startswith(f"{_SWITCH} "):
                line, self._kept = _SWITCH, line.removeprefix(f"{_SWITCH} ")
            elif line.strip():
                self._readline.add_history(line)
            yield line

    def _insert(self) -> None:
        self._readline.insert_text(self._kept)
        self._kept = ""
