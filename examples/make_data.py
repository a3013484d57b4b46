"""Write the two example datasets. Synthetic, seeded: running it again changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
TRAIN, HELD_OUT = 300, 60
Row = dict[str, str]

# Tenant one: a trail guide that turns attributes into a sentence.

FIRST = "Heron Amber Granite Willow Foxglove Raven Cinder Juniper Otter Saddle Linden Copper Mossy "
FIRST += (
    "Harrier Quarry Sorrel Badger Thistle Larch Kestrel Bramble Falcon Marten Rowan Slate Alder"
)
SECOND = ["Loop", "Ridge Path", "Trail", "Way", "Circuit", "Traverse", "Walk", "Climb"]
REGIONS = ["Lake Mirren", "the Alder Valley", "Cape Solen", "the Tarn Hills", "Fell Forest",
           "the Ostra coast", "Mount Bray", "the Dunmore moor"]  # fmt: skip
VIEWS = ["waterfall", "lighthouse", "old mill", "canyon", "chapel", "hanging bridge", "castle ruin"]
SHAPES: list[Callable[[dict[str, str]], str]] = [
    lambda a: f"{a['name']} is {a['kind']}{a['of']}{a['where']}{a['with']}{a['dogs']}.",
    lambda a: f"{a['Where']}{a['name']} is {a['kind']}{a['of']}{a['with']}{a['dogs']}.",
    lambda a: (
        f"At {a['name']} you will find {a['kind']}{a['of']}{a['where']}{a['with']}{a['dogs']}."
    ),
]


def trail(rng: random.Random, name: str) -> Row:
    given = {"name": name, "region": rng.choice(REGIONS), "length": f"{rng.randint(2, 24)} km",
             "difficulty": rng.choice(["easy", "moderate", "hard"]),
             "dogs": rng.choice(["allowed", "not allowed"]), "view": rng.choice(VIEWS)}  # fmt: skip
    dropped = rng.sample(["region", "length", "difficulty", "dogs", "view"], rng.randint(0, 3))
    given = {key: value for key, value in given.items() if key not in dropped}
    text = ", ".join(f"{key}[{value}]" for key, value in given.items())
    return {"input": text, "target": rng.choice(SHAPES)(_phrases(given))}


def _phrases(given: dict[str, str]) -> dict[str, str]:
    level = given.get("difficulty")
    article = "an" if level == "easy" else "a"
    where = f" in {given['region']}" if "region" in given else ""
    if "region" in given and given["region"].split()[0] in ("Lake", "Mount", "Cape"):
        where = f" near {given['region']}"
    dogs = {"allowed": ", and dogs are welcome", "not allowed": ", but dogs must stay at home"}
    return {
        "name": given["name"],
        "kind": f"{article} {level} hike" if level else "a hike",
        "of": f" of {given['length']}" if "length" in given else "",
        "where": where,
        "Where": f"{where.strip().capitalize()}, " if where else "",
        "with": f" with a view of the {given['view']}" if "view" in given else "",
        "dogs": dogs[given["dogs"]] if "dogs" in given else "",
    }


# Tenant two: a help desk that turns a message into one line of JSON.

PRODUCTS = ["kettle", "desk lamp", "backpack", "headphones", "office chair", "tent", "blender",
            "rain jacket", "keyboard", "yoga mat", "water bottle", "bike light"]  # fmt: skip
SAID = {
    "refund": ["I want my money back for the {p}", "please refund the {p} I sent back",
               "how do i get a refund for this {p}", "The {p} was not for me, I'd like a refund"],
    "delivery": ["my {p} still has not arrived", "Where is the {p} I ordered two weeks ago?",
                 "the parcel with my {p} seems to be lost", "tracking for the {p} has not moved"],
    "defect": ["the {p} broke on the first day", "My {p} stopped working yesterday",
               "the {p} came with a crack in it", "This {p} makes a strange noise and then dies"],
    "question": ["does the {p} come in blue?", "How long is the warranty on the {p}",
                 "Can I wash the {p}?", "is the {p} suitable for children"],
    "account": ["I cannot log in to my account", "please change my e-mail address",
                "my password reset link does not work", "Why was my account locked?"],
}  # fmt: skip
URGENT = ["I need this solved today!", "This is urgent.", "Please answer right away."]
CALM = ["No hurry.", "Whenever you have time.", "It can wait till next week."]
OPENERS = ["", "Hi, ", "Hello there, ", "Good morning. ", "hey ", "Dear team, "]


def ticket(rng: random.Random) -> Row:
    intent = rng.choice(list(SAID))
    product = rng.choice(PRODUCTS) if intent != "account" else None
    order = f"{rng.choice('ABCD')}-{rng.randint(1000, 9999)}" if rng.random() < 0.6 else None
    urgency = rng.choice(["low", "normal", "high"])
    text = rng.choice(OPENERS) + rng.choice(SAID[intent]).format(p=product)
    text += "" if text.endswith("?") else "."
    if order:
        text += rng.choice([f" Order {order}.", f" My order number is {order}.", f" ({order})"])
    if urgency != "normal":
        text += " " + rng.choice(URGENT if urgency == "high" else CALM)
    answer = {"intent": intent, "product": product, "urgency": urgency, "order": order}
    return {"input": text, "target": json.dumps(answer)}


def trails(rng: random.Random) -> list[Row]:
    names = [f"{first} {second}" for first in FIRST.split() for second in SECOND]
    rng.shuffle(names)
    held_out = names[-HELD_OUT:]
    train = [names[i % (len(names) - HELD_OUT)] for i in range(TRAIN)]
    return [trail(rng, name) for name in (*train, *held_out)]


def tickets(rng: random.Random) -> list[Row]:
    rows: dict[str, Row] = {}
    while len(rows) < TRAIN + HELD_OUT:
        row = ticket(rng)
        rows.setdefault(row["input"], row)
    return list(rows.values())


def datasets() -> dict[str, list[Row]]:
    """Rows by file name under examples/."""
    files = {}
    for name, make in (("trails", trails), ("tickets", tickets)):
        rows = make(random.Random(name))
        files[f"{name}/train.jsonl"] = rows[:TRAIN]
        files[f"{name}/heldout.jsonl"] = rows[TRAIN:]
    return files


def main() -> None:
    for name, rows in datasets().items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main()
