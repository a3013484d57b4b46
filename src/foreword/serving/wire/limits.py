"""How large a client may make what it sends."""

from __future__ import annotations

MAX_BODY = 1 << 20
"""Bytes of a request's body."""
MAX_DEPTH = 32
"""Levels of JSON inside each other."""
MAX_OPENINGS = 8192
"""Objects and lists in one body."""
MAX_FIELDS = 32_768
"""Of all objects of one body together."""
MAX_VALUES = 160_000
"""Commas outside texts: room for a prompt of as many token ids as fit a body."""
MAX_NUMBER = 32
"""Characters of a number."""
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_ANSWERS = 8
"""`n`."""
MAX_PROMPTS = 16
"""Of one completion request."""
MAX_STOPS = 4
MAX_STOP = 64
"""Characters of one stop text."""
MAX_STOP_IDS = 64
MAX_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1
MAX_TOKEN_ID = 2**31 - 1
MAX_TEMPERATURE = 2.0
MAX_SCHEMA = 64 * 1024
"""Bytes of a JSON schema or a regular expression."""
MAX_MODEL = 256
MAX_USER = 256
"""Characters of a name."""
MAX_INPUTS = 64
"""Columns of a trained template."""
