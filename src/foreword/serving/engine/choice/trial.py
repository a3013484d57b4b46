"""Compile a grammar in a child process first, which can be killed.

llguidance counts the work of compiling, but not all of it: a schema of 1 KB that demands thirty
patterns of the same text does not come to an end, and a thread cannot be interrupted. What a
stranger sent is therefore tried where time and memory can be limited, and a crash hurts nobody.
"""

from __future__ import annotations

import subprocess
import sys

TRIAL_SECONDS = 4.0
TRIAL_BYTES = 2**30

# A string and not a module: the child shall import llguidance and nothing else (50 ms).
_CHILD = f"""
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({TRIAL_BYTES}, {TRIAL_BYTES}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass  # a system without such limits still has the clock
import llguidance
limits = llguidance.LLParserLimits(verbose_errors=False)
data = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write(llguidance.LLMatcher.validate_grammar(data, limits=limits).encode())
"""


def objection(grammar: str) -> str | None:
    """Why a grammar cannot be compiled, None if it can."""
    # -P: nothing is imported from the directory the command happens to run in.
    command = [sys.executable, "-P", "-c", _CHILD]
    try:
        done = subprocess.run(
            command, input=grammar.encode(), capture_output=True, timeout=TRIAL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"it was not compiled within {TRIAL_SECONDS:g} seconds"
    if done.returncode != 0:
        return f"compiling it took more than {TRIAL_BYTES >> 20} MB or failed"
    return done.stdout.decode(errors="replace") or None
