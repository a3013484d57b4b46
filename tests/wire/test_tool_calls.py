"""Which texts are calls, whether they come at once or in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.serving.wire.tool_calls import Call, CallWatcher, Spoken, read_calls

OFFERED = frozenset({"weather", "time"})
ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
BERN = Call("weather", '{"city": "Zürich"}')


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("", Spoken("")),
        ("It rains.", Spoken("It rains.")),
        ("It rains. \n", Spoken("It rains. \n")),
        (ONE, Spoken("", (BERN,))),
        (f"Let me see.\n{ONE}", Spoken("Let me see.", (BERN,))),
        (f"{ONE}\n{ONE}\n", Spoken("", (BERN, BERN))),
        (ONE.removesuffix("</tool_call>"), Spoken("", (BERN,))),
        ('<tool_call>{"name":"time"}</tool_call>', Spoken("", (Call("time", "{}"),))),
    ],
)
def test_calls_are_taken_out_of_a_text(text: str, spoken: Spoken) -> None:
    read = read_calls(text, OFFERED)
    assert (read.text.rstrip() if read.calls else read.text, read.calls) == (
        spoken.text,
        spoken.calls,
    )


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "{",
        "null",
        '{"name": "weather"',
        '{"name": "weather", "arguments": "{}"}',
        '{"name": "weather", "arguments": []}',
        '{"name": "delete_everything", "arguments": {}}',
        '{"arguments": {}}',
        '{"name": 5, "arguments": {}}',
        '{"name": "weather", "name": "time", "arguments": {}}',
        '{"name": "weather", "arguments": {"a": NaN}}',
        '{"name": "weather", "arguments": {}, "more": 1}',
        "[" * 100_000,
        "9" * 10_000,
    ],
)
def test_what_is_marked_as_a_call_and_is_none_stays_text(inside: str) -> None:
    text = f"{ONE} <tool_call>{inside}</tool_call>"
    assert read_calls(text, OFFERED) == Spoken(text)


@given(
    st.lists(
        st.sampled_from(
            [
                ONE,
                "<tool_call>",
                "</tool_call>",
                "<tool",
                "_call>",
                "<",
                " ",
                "\n",
                "a",
                '{"name": ',
                "é",
            ]
        ),
        max_size=6,
    ).map("".join),
    st.randoms(use_true_random=False),
)
def test_pieces_say_the_same_as_the_whole_and_nothing_is_taken_back(text, random) -> None:  # type: ignore[no-untyped-def]
    watcher, shown, left = CallWatcher(OFFERED), "", text
    while left:
        size = random.randint(1, 4)
        shown += watcher.push(left[:size])
        left = left[size:]
        assert text.startswith(shown)
    end = watcher.finish()
    assert Spoken(shown + end.text, end.calls) == read_calls(text, OFFERED)


def test_plain_text_is_not_kept_waiting() -> None:
    watcher = CallWatcher(OFFERED)
    assert [watcher.push(piece) for piece in ("It", " rains <", "b> now")] == [
        "It",
        " rains",
        " <b> now",
    ]


def test_arguments_come_out_as_json() -> None:
    (call,) = read_calls(ONE, OFFERED).calls
    assert json.loads(call.arguments) == {"city": "Zürich"}
