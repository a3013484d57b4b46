"""Overwrite every key and value that no request may read any more, or not yet.

With numbers that win any competition for attention: whoever reads one answers with the marker `STALE`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.artifact import Site
from foreword.serving.engine.engine import Engine
from foreword.serving.engine.job import Answer, Job
from foreword.serving.engine.model.rows import Arena, Row

_LARGE = 1e4


def poison(engine: Engine) -> None:
    """Between two steps: free rows, free columns, and columns of layers that a prefix lacks."""
    held = {
        id(answer.row): (job, answer) for job in engine._jobs.values() for answer in job.answers
    }
    for arena in engine._pool.arenas.values():
        if arena.keys:
            _poison(arena, held)


def _poison(arena: Arena, held: dict[int, tuple[Job, Answer]]) -> None:
    ends = torch.zeros(arena.allocated, dtype=torch.long)
    ends[: arena.used] = torch.tensor(
        [_end(*held[id(row)]) for row in arena.rows], dtype=torch.long
    )
    unread = (torch.arange(arena.capacity) >= ends[:, None])[:, None, :, None]
    for tensor in (*arena.keys, *arena.values):
        tensor.masked_fill_(unread, _LARGE)
    for row in arena.rows:
        _poison_gaps(row, held[id(row)][0])


def _end(job: Job, answer: Answer) -> int:
    """The first column of its row that was not computed yet."""
    if not job.prefilling:
        return job.first_column + len(job.request.prompt) + len(answer.tokens) - 1
    return job.first_column + job.computed if answer is job.answers[0] else 0


def _poison_gaps(row: Row, job: Job) -> None:
    if job.resident is None or not job.first_column:
        return
    layers = job.resident.kv.layers[Site.DECODER]
    for index, (key, value) in enumerate(row.layers()):
        if index not in layers:
            _fill(key, job.first_column)
            _fill(value, job.first_column)


def _fill(tensor: Tensor, columns: int) -> None:
    tensor[:, :columns] = _LARGE
