"""Ids of requests: drawn many at a time, given out once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from foreword.serving.gateway.ids import new_id


def test_no_id_is_given_out_twice_whoever_asks() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = [
            each
            for ids in threads.map(lambda _: [new_id() for _ in range(500)], range(16))
            for each in ids
        ]
    assert len(set(found)) == len(found) == 8_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in found)
