"""The scorecard as Markdown, for a pull request or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from foreword.evaluation.scorecards.examples import Examples
from foreword.evaluation.scorecards.headline import WORDS, Headline, RuleLine, headline_of
from foreword.evaluation.scorecards.scorecard import Cell, Comparison, Scorecard
from foreword.evaluation.scorecards.slices import ALL
from foreword.evaluation.scorecards.texts import figure, harmless

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@$-])")
_MOST_TEXT = 300


def to_markdown(card: Scorecard, headline: Headline | None = None) -> str:
    """Verdict, values, differences by slice, wins and losses. No text in it can start markup."""
    return "\n".join(_lines(card, headline or headline_of(card))) + "\n"


def _lines(card: Scorecard, headline: Headline) -> Iterator[str]:
    yield f"# {WORDS[headline.outcome].upper()}: {_plain(headline.says)}"
    yield ""
    yield from (f"- {_plain(reason)}" for reason in headline.reasons)
    if headline.reasons:
        yield ""
    if headline.rules:
        yield from _rules(headline.rules)
    yield (
        f"Set {_plain(card.golden.name)}@{card.golden.version} (`{card.set_digest}`), {card.rows} rows, "
        f"for {_plain(card.golden.specialty)}; at most {card.decoding.max_new_tokens} tokens, temperature "
        f"{card.decoding.temperature:g}; {_plain(card.engine or 'engine not named')}."
    )
    for variant in card.variants:
        yield f"- {_plain(variant.name)}: `{variant.digest or 'bare model'}` by {_plain(variant.route)}"
    yield from _values(card)
    for pair in card.pairs:
        yield from _differences(card, *pair)
    for examples in card.examples:
        yield from _examples(examples)


def _rules(rules: Sequence[RuleLine]) -> Iterator[str]:
    yield from _head(["rule", "rows", "outcome", "value", "interval", "limit", "n", "power"])
    for each in rules:
        texts = (each.rule, each.rows, WORDS[each.outcome].lower(), each.value, each.interval)
        yield _row([_plain(text) for text in (*texts, each.limit, each.n, each.power)])
    yield ""


def _values(card: Scorecard) -> Iterator[str]:
    names = [variant.name for variant in card.variants]
    yield from ("", "## All rows", "")
    yield from _head(["metric", *names, "n"])
    for facts in card.metrics:
        cells = [card.cell(name, facts.name) for name in names]
        label = facts.name + (f" ({_proxy(card, facts.name)})" if facts.proxy else "")
        n = max((cell.n for cell in cells if cell), default=0)
        yield _row([_plain(label), *(_value(cell) for cell in cells), str(n)])


def _proxy(card: Scorecard, metric: str) -> str:
    """What a proxy is worth, as far as it is known."""
    known = [each for each in card.calibrations if each.metric == metric]
    if not known:
        return "proxy, not calibrated"
    return f"proxy, agrees with people on {100 * known[0].agreement:.0f} % of {known[0].n}"


def _differences(card: Scorecard, candidate: str, against: str) -> Iterator[str]:
    yield from ("", f"## {_plain(candidate)} minus {_plain(against)}", "")
    yield from _head(["slice", "metric", "difference", "interval", "p", "p by Holm", "n"])
    for each in card.comparisons:
        shown = each.slice == ALL or each.p_adjusted <= 1 - card.sampling.confidence
        if (each.candidate, each.against) == (candidate, against) and shown:
            yield _row(_difference(each))
    yield from ("", "Slices with no difference that stands after Holm's correction are not listed.")


def _difference(each: Comparison) -> list[str]:
    interval = f"{figure(each.low, signed=True)} to {figure(each.high, signed=True)}"
    return [
        _plain(each.slice.label), _plain(each.metric), figure(each.difference, signed=True), interval,
        f"{each.p:.3f}", f"{each.p_adjusted:.3f}", str(each.n),
    ]  # fmt: skip


def _examples(examples: Examples) -> Iterator[str]:
    for word, rows in (("wins", examples.wins), ("losses", examples.losses)):
        if rows:
            title = f"Biggest {word} of {examples.candidate} against {examples.against}"
            yield from ("", f"## {_plain(title)}", "")
            yield from _head(
                ["row", examples.metric, "input", examples.candidate, examples.against]
            )
            for row in rows:
                texts = [_plain(_cut(t)) for t in (row.input, row.candidate, row.against)]
                yield _row([_plain(row.row), figure(row.change, signed=True), *texts])


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _row([_plain(name) for name in names])
    yield _row(["---"] * len(names))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _value(cell: Cell | None) -> str:
    return f"{figure(cell.value)} ({figure(cell.low)} to {figure(cell.high)})" if cell else "none"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def _plain(text: str) -> str:
    """Text that Markdown takes as text, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(harmless(text).split()))
