"""Faults that engines of this kind have had, or could have; each is put in for one test.

Every one is a few lines that somebody might have written in good faith.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from foreword.artifact import Digest
from foreword.errors import ForewordError
from foreword.serving.contract import BARE, AdapterSet, Chunk
from foreword.serving.engine.admission import Admission
from foreword.serving.engine.job import Job
from foreword.serving.engine.model import attention
from foreword.serving.engine.model.rows import Arena, Row, Snapshot
from foreword.serving.engine.residency.bringing import Bringing
from foreword.serving.engine.residency.device import Resident
from foreword.serving.engine.residency.store import PrefixStore
from foreword.serving.engine.reuse.prompts import PromptCache

Bug = Callable[[pytest.MonkeyPatch], None]


def a_prefix_is_found_by_a_part_of_its_digest(patch: pytest.MonkeyPatch) -> None:
    real = PrefixStore.want

    def want(store: PrefixStore, digest: Digest, now: float) -> Resident | None:
        for resident in store._device.residents():
            if resident.digest.hex[0] == digest.hex[0]:
                return resident
        return real(store, digest, now)

    patch.setattr(PrefixStore, "want", want)


def a_store_is_believed_whatever_it_gives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Bringing, "from_afar", lambda bring, digest: bring._fitting(bring.fetch(digest)))


def a_prefix_that_is_taken_back_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrefixStore, "forget", lambda store, digest, now: None)


def without_its_prefix_a_request_goes_on(patch: pytest.MonkeyPatch) -> None:
    real = Admission._resident

    def resident(admission: Admission, job: Job, now: float) -> Resident | None:
        try:
            return real(admission, job, now)
        except ForewordError:
            job.request = replace(job.request, adapters=BARE)
            return None

    patch.setattr(Admission, "_resident", resident)


def a_prefix_is_not_copied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Row, "write_prefix", lambda row, prefix: None)


def the_last_column_of_a_prefix_is_not_copied(patch: pytest.MonkeyPatch) -> None:
    real = Row.write_prefix

    def write_prefix(row: Row, prefix: Any) -> None:
        last = [tensor[:, prefix.length - 1].clone() for pair in row.layers() for tensor in pair]
        real(row, prefix)
        for pair in row.layers():
            for tensor in pair:
                tensor[:, prefix.length - 1] = last.pop(0)

    patch.setattr(Row, "write_prefix", write_prefix)


def a_row_moves_without_its_numbers(patch: pytest.MonkeyPatch) -> None:
    def give_back(arena: Arena, row: Row) -> None:
        last = arena.rows.pop()
        if last is not row:
            arena.rows[row.index] = last
            last.index = row.index
        row.index = -1

    patch.setattr(Arena, "give_back", give_back)


def a_token_sees_one_column_too_many(patch: pytest.MonkeyPatch) -> None:
    real = attention._Decoding.__post_init__

    def post_init(part: attention._Decoding) -> None:
        real(part)
        part.lengths += 1
        part.longest = min(part.longest + 1, part.arena.capacity)

    patch.setattr(attention._Decoding, "__post_init__", post_init)


def a_layer_that_a_prefix_lacks_is_seen(patch: pytest.MonkeyPatch) -> None:
    real = attention._Prompt._mask

    def mask(
        part: attention._Prompt, window: int | None, hidden: bool, group: int, like: Tensor
    ) -> Tensor:
        return real(part, window, False, group, like)

    patch.setattr(attention._Prompt, "_mask", mask)


def a_shared_prefix_is_left_out_while_decoding(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "_shared", lambda pieces: [])


def a_shared_prefix_goes_to_everybody(patch: pytest.MonkeyPatch) -> None:
    real = attention._shared

    def shared(pieces: Any) -> Any:
        found = real(pieces)
        return [(found[0][0], which) for _, which in found]

    patch.setattr(attention, "_shared", shared)


def a_prompt_is_reused_with_another_prefix(patch: pytest.MonkeyPatch) -> None:
    lookup, store = PromptCache.lookup, PromptCache.store

    def find(cache: Any, tenant: str, adapters: AdapterSet, prompt: tuple[int, ...]) -> Any:
        return lookup(cache, tenant, BARE, prompt)

    def keep(cache: Any, tenant: str, adapters: AdapterSet, *rest: Any) -> int:
        return store(cache, tenant, BARE, *rest)

    patch.setattr(PromptCache, "lookup", find)
    patch.setattr(PromptCache, "store", keep)


def a_prompt_is_reused_by_another_tenant(patch: pytest.MonkeyPatch) -> None:
    lookup, store = PromptCache.lookup, PromptCache.store

    def find(cache: Any, tenant: str, *rest: Any) -> Any:
        return lookup(cache, "everybody", *rest)

    def keep(cache: Any, tenant: str, *rest: Any) -> int:
        return store(cache, "everybody", *rest)

    patch.setattr(PromptCache, "lookup", find)
    patch.setattr(PromptCache, "store", keep)


def a_reused_prompt_lands_on_the_prefix(patch: pytest.MonkeyPatch) -> None:
    real = Row.restore

    def restore(row: Row, first: int, saved: Snapshot, tokens: int) -> None:
        real(row, 0, saved, tokens)

    patch.setattr(Row, "restore", restore)


def other_answers_get_less_of_the_prompt(patch: pytest.MonkeyPatch) -> None:
    real = Row.copy_from
    patch.setattr(Row, "copy_from", lambda row, other, columns: real(row, other, columns - 1))


def answers_are_mixed_up(patch: pytest.MonkeyPatch) -> None:
    real = Job.chunk

    def chunk(job: Job, *args: Any) -> Chunk:
        return replace(real(job, *args), index=0)

    patch.setattr(Job, "chunk", chunk)


def a_row_is_kept_by_who_was_cancelled(patch: pytest.MonkeyPatch) -> None:
    def release(admission: Admission, job: Job, *, clear: bool = False) -> None:
        if job.resident is not None and admission._store is not None:
            admission._store.unpin(job.resident)
            job.resident = None

    patch.setattr(Admission, "release", release)


BUGS: tuple[Bug, ...] = (
    a_prefix_is_found_by_a_part_of_its_digest, a_store_is_believed_whatever_it_gives,
    a_prefix_that_is_taken_back_stays, without_its_prefix_a_request_goes_on, a_prefix_is_not_copied,
    the_last_column_of_a_prefix_is_not_copied, a_row_moves_without_its_numbers,
    a_token_sees_one_column_too_many, a_layer_that_a_prefix_lacks_is_seen,
    a_shared_prefix_is_left_out_while_decoding, a_shared_prefix_goes_to_everybody,
    a_prompt_is_reused_with_another_prefix, a_prompt_is_reused_by_another_tenant,
    a_reused_prompt_lands_on_the_prefix, other_answers_get_less_of_the_prompt, answers_are_mixed_up,
    a_row_is_kept_by_who_was_cancelled,
)  # fmt: skip
