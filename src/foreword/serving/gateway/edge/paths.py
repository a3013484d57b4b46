"""Which paths are plain. What is not plain is refused before anybody asks who may use it.

    /v1/chat/completions              plain
    /v1/models/acme/support@1.2.0     plain
    /v1/models/acme%2Fsupport         plain: clients write names of models so, and only there
    /v1//chat  /v1/../x  /v1/x;y  /v1/%63hat  /v1/chat/  /v1\\x  http://other/v1/chat       not

So a router and whoever stands in front of us cannot disagree about what a path means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~@:+-]{1,200}"
_PLAIN = re.compile(rf"/|(?:/{_SEGMENT}){{1,16}}")
_IN_NAMES = {"%2f": "/", "%40": "@", "%3a": ":"}
_MOST = 1_024


def is_plain(raw: bytes, path: str, named: Sequence[str]) -> bool:
    """`raw` as it was in the request line, `path` as the server decoded it.

    `named`: beginnings after which the name of a model follows.
    """
    if len(raw) > _MOST or not raw.isascii():
        return False
    text = raw.decode("ascii")
    for beginning in named:
        if text.startswith(beginning):
            text = beginning + _unescape(text.removeprefix(beginning))
    return text == path and _PLAIN.fullmatch(text) is not None


def _unescape(name: str) -> str:
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda found: _known(found[0]), name)


def _known(escape: str) -> str:
    return _IN_NAMES.get(escape.lower(), escape)
