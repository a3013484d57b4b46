"""Write the two example datasets. Synthetic, seeded: running it again changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TRAIN, HELD_OUT = 300, 60
Row = dict[str, str]

# Tenant one: a trail guide that turns attributes into a sentence. Thirty first names for training
# and six for the held-out rows, each with every second name, so that no held-out name was seen.

FIRST = [
    "Heron",
    "Amber",
    "Granite",
    "Willow",
    "Foxglove",
    "Raven",
    "Cinder",
    "Juniper",
    "Otter",
    "Saddle",
    "Linden",
    "Copper",
    "Mossy",
    "Harrier",
    "Quarry",
    "Sorrel",
    "Badger",
    "Thistle",
    "Larch",
    "Kestrel",
    "Bramble",
    "Falcon",
    "Marten",
    "Rowan",
    "Slate",
    "Alder",
    "Ember",
    "Plover",
    "Hazel",
    "Drover",
]
UNSEEN_FIRST = ["Lantern", "Osprey", "Birch", "Miller", "Curlew", "Shepherd"]
SECOND = ["Loop", "Ridge", "Trail", "Way", "Circuit", "Traverse", "Walk", "Climb", "Path", "Round"]
REGIONS = {
    "Lake Mirren": "by", "the Alder Valley": "in", "Cape Solen": "on", "the Tarn Hills": "in",
    "Fell Forest": "in", "the Ostra coast": "on", "Mount Bray": "on", "Dunmore Moor": "on",
    "the Silver Gorge": "in", "Port Ellery": "near",
}  # fmt: skip
VIEWS = ["waterfall", "lighthouse", "old mill", "canyon", "chapel", "hanging bridge",
         "castle ruin", "watchtower", "stone circle", "cave"]  # fmt: skip
LEVELS = ["easy", "moderate", "hard", "challenging"]
SEASONS = ["spring", "summer", "autumn", "winter"]
NOUNS = ["trail", "walk", "hike", "route"]
DOGS = {
    "allowed": [", and dogs are welcome", ", and dogs may come along", ", and dogs are allowed"],
    "not allowed": [", but dogs are not allowed", ", but dogs must stay at home",
                    ", though dogs are not welcome"],
}  # fmt: skip


def _a(words: str) -> str:
    """`words` with its indefinite article: an easy trail, an 18 km walk."""
    first = words.split()[0]
    return f"{'an' if first[0] in 'aeiou8' or first in ('11', '18') else 'a'} {words}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


@dataclass(frozen=True)
class Trail:
    """What is known of a trail, as parts of a sentence; a part not known is empty."""

    given: dict[str, str]
    noun: str
    dogs: str
    """`, and dogs are welcome`"""

    @property
    def name(self) -> str:
        return self.given["name"]

    @property
    def traits(self) -> str:
        """`easy 7 km`"""
        return " ".join(self.given[k] for k in ("difficulty", "length") if k in self.given)

    @property
    def kind(self) -> str:
        """`an easy 7 km trail`"""
        return _a(f"{self.traits} {self.noun}".strip())

    @property
    def where(self) -> str:
        """` by Lake Mirren`"""
        region = self.given.get("region")
        return f" {REGIONS[region]} {region}" if region else ""

    @property
    def sight(self) -> str:
        """`a waterfall`"""
        return _a(self.given["view"]) if "view" in self.given else ""

    @property
    def having(self) -> str:
        return f" with {self.sight}" if self.sight else ""

    @property
    def best(self) -> str:
        return f", best in {self.given['season']}" if "season" in self.given else ""

    @property
    def and_best(self) -> str:
        return f" and is best in {self.given['season']}" if "season" in self.given else ""

    @property
    def note(self) -> str:
        """`; dogs are welcome`, after a sentence that asks the reader to do something"""
        return f"; dogs are {self.admits}" if "dogs" in self.given else ""

    @property
    def bring(self) -> str:
        welcome = self.given["dogs"] == "allowed"
        return "Bring your dog to" if welcome else "Leave your dog at home for"

    @property
    def admits(self) -> str:
        return "welcome" if self.given["dogs"] == "allowed" else "not allowed"


def _listed(t: Trail) -> str:
    """Heron Loop runs for 7 km by Lake Mirren, is easy, passes a waterfall and welcomes dogs."""
    given = t.given
    says = [f"runs for {given['length']}{t.where}"]
    if "difficulty" in given:
        says.append(f"is {given['difficulty']}")
    if t.sight:
        says.append(f"passes {t.sight}")
    if "season" in given:
        says.append(f"is best in {given['season']}")
    if "dogs" in given:
        says.append("welcomes dogs" if given["dogs"] == "allowed" else "does not admit dogs")
    return f"{t.name} {', '.join(says[:-1])} and {says[-1]}." if says[1:] else ""


Shape = Callable[[Trail], str]
SHAPES: list[tuple[str, Shape]] = [  # the attributes a shape cannot do without, and the shape
    ("", lambda t: f"{t.name} is {t.kind}{t.where}{t.having}{t.best}{t.dogs}."),
    ("", lambda t: f"{t.name} offers {t.kind}{t.where}{t.having}{t.and_best}{t.dogs}."),
    ("", lambda t: f"Try {t.name}, {t.kind}{t.where}{t.having}{t.best}{t.note}."),
    ("", lambda t: f"On {t.name} you can enjoy {t.kind}{t.where}{t.having}{t.best}{t.dogs}."),
    ("length", _listed),
    ("length", lambda t: f"With a length of {t.given['length']}, {t.name}{t.where} is "
     + _a(f"{t.given.get('difficulty', '')} {t.noun}".strip()) + f"{t.having}{t.best}{t.dogs}."),
    ("difficulty", lambda t: f"If you want {t.kind}{t.where}{t.having}, {t.name} is a good choice"
     f"{t.and_best}{t.dogs}."),
    ("difficulty view", lambda t: f"The {t.traits} {t.noun} called {t.name}{t.where} leads to "
     f"{t.sight}{t.and_best}{t.dogs}."),
    ("region", lambda t: f"{_upper(t.where[1:])} you will find {t.name}, "
     f"{t.kind}{t.having}{t.best}{t.dogs}."),
    ("region", lambda t: f"Visitors to {t.given['region']} can explore {t.name}, "
     f"{t.kind}{t.having}{t.best}{t.note}."),
    ("view", lambda t: f"{t.name}, {t.kind}{t.where}, takes you past {t.sight}"
     f"{t.and_best}{t.dogs}."),
    ("view", lambda t: f"{_upper(t.sight)} awaits you on {t.name}, "
     f"{t.kind}{t.where}{t.best}{t.dogs}."),
    ("view", lambda t: f"See {t.sight} along {t.name}, {t.kind}{t.where}{t.best}{t.note}."),
    ("season", lambda t: f"{_upper(t.given['season'])} is the best time for {t.name}, "
     f"{t.kind}{t.where}{t.having}{t.dogs}."),
    ("season", lambda t: f"Best in {t.given['season']}, {t.name} is "
     f"{t.kind}{t.where}{t.having}{t.dogs}."),
    ("dogs", lambda t: f"{t.bring} {t.name}, {t.kind}{t.where}{t.having}{t.best}."),
    ("dogs", lambda t: f"Dogs are {t.admits} on {t.name}, {t.kind}{t.where}{t.having}{t.best}."),
]  # fmt: skip


def trail(rng: random.Random, name: str) -> Row:
    every = {
        "region": rng.choice(list(REGIONS)),
        "length": f"{rng.randint(2, 24)} km",
        "difficulty": rng.choice(LEVELS),
        "dogs": rng.choice(list(DOGS)),
        "view": rng.choice(VIEWS),
        "season": rng.choice(SEASONS),
    }
    kept = rng.sample(list(every), rng.randint(2, 5))
    given = {"name": name} | {key: value for key, value in every.items() if key in kept}
    facts = Trail(
        given,
        noun=rng.choice([noun for noun in NOUNS if noun not in name.lower()]),
        dogs=rng.choice(DOGS[given["dogs"]]) if "dogs" in given else "",
    )
    fitting = [shape for needs, shape in SHAPES if all(key in given for key in needs.split())]
    rng.shuffle(fitting)
    target = next(said for said in (shape(facts) for shape in fitting) if said)
    return {"input": ", ".join(f"{key}[{value}]" for key, value in given.items()), "target": target}


def trails(rng: random.Random) -> list[Row]:
    train = [f"{first} {second}" for first in FIRST for second in SECOND]
    held_out = [f"{first} {second}" for first in UNSEEN_FIRST for second in SECOND]
    rng.shuffle(train)
    rng.shuffle(held_out)
    return [trail(rng, name) for name in train[:TRAIN] + held_out[:HELD_OUT]]


# Tenant two: a help desk that turns a message into one line of JSON. `{p}` is the product; a
# phrase without it has none. Training and held-out messages share no phrase.

INTENTS = ("refund", "delivery", "defect", "account", "question")
URGENCIES = ("low", "normal", "high")
ELECTRIC = ("kettle", "desk lamp", "headset", "blender", "keyboard", "bike light")
OTHER = ("backpack", "office chair", "tent", "rain jacket", "yoga mat", "water bottle")
PRODUCTS = ELECTRIC + OTHER


@dataclass(frozen=True)
class Phrases:
    """One side of the split: what its customers say."""

    said: dict[str, list[str]]
    broken: dict[tuple[str, ...], list[str]]
    """Defects that only happen to some products."""
    urgency: dict[str, list[str]]
    openers: list[str]
    order: list[str]
    """`{s}` is the sentence without its last mark, `{e}` the mark, `{o}` the order."""


SEEN = Phrases(
    said={
        "refund": [
            "I want my money back for the {p}.", "Please refund the {p} I sent back last week.",
            "How do I get a refund for this {p}?", "The {p} was not for me, I would like a refund.",
            "I returned the {p} ten days ago and the refund never came.",
            "Could you give me the money back for my {p}?",
            "You charged me twice, please refund me.",
            "I cancelled the {p} but the money is not back on my card.",
            "My husband already owns the same {p}, so please take it back and refund me.",
            "I changed my mind about the {p} and want to return it for a refund.",
            "I am still waiting for my refund.",
            "The {p} is too small, I want to return it for my money.",
        ],
        "delivery": [
            "My {p} still has not arrived.", "Where is the {p} I ordered two weeks ago?",
            "The parcel with my {p} seems to be lost.",
            "Tracking for the {p} has not moved since Monday.",
            "It says delivered but there is no {p} at my door.", "When will my {p} get here?",
            "The courier left my {p} with a neighbour I do not know.",
            "Your driver never rang the bell, and my {p} went back to the depot.",
            "I was promised the {p} for Friday and nothing came.",
            "My package is stuck at customs.",
            "Can you send the {p} to my office address instead?", "Has my parcel been shipped yet?",
        ],
        "defect": [
            "The {p} broke on the first day.", "The {p} came with a crack in it.",
            "My new {p} is already falling apart.", "I opened the box and the {p} was damaged.",
            "A part of the {p} is missing.", "This {p} is faulty.",
            "I have had the {p} for a week and it is broken.", "One side of my {p} is bent.",
        ],
        "account": [
            "I cannot log in to my account.", "Please change my e-mail address.",
            "My password reset link does not work.", "Why was my account locked?",
            "How do I delete my account?", "I forgot my password and the hint is no help.",
            "My login code never shows up.", "Please update the phone number in my profile.",
            "Somebody else is using my account.", "The site keeps logging me out.",
            "I made two accounts because of a mistake, can you merge them?",
            "How do I turn off the newsletter in my account?",
        ],
        "question": [
            "Does the {p} come in blue?", "How long is the warranty on the {p}?",
            "Is the {p} suitable for children?", "What is the {p} made of?",
            "Is the {p} back in stock soon?", "How heavy is the {p}?", "Do you ship to Norway?",
            "Where can I find the manual for the {p}?", "Which size of the {p} should I pick?",
            "Do you have a student discount?", "Is the {p} made in Europe?",
            "I would like to know how to clean the {p}.",
        ],
    },
    broken={
        ELECTRIC: ["My {p} stopped working yesterday.", "The {p} will not turn on.",
                   "This {p} makes a strange noise and then dies.",
                   "The {p} smells of burning plastic."],
        ("backpack", "tent", "rain jacket"): [
            "The zip of my {p} is stuck.", "There is a hole in the {p}.",
            "The seams of the {p} came undone."],
        ("tent", "rain jacket", "water bottle"): ["My {p} leaks."],
        ("office chair",): ["The {p} wobbles and one wheel came off."],
        ("yoga mat",): ["The {p} peels and leaves bits on the floor."],
    },
    urgency={
        "high": ["I need this solved today!", "This is urgent.", "Please answer right away.",
                 "I need an answer ASAP!", "It is an emergency.", "Hurry please!!"],
        "low": ["No hurry.", "Whenever you have time.", "It can wait till next week.",
                "There is no rush at all.", "Take your time.", "This is not urgent."],
        "normal": ["Thanks for your help!", "I am quite disappointed.", "Not happy about it.",
                   "I usually love your shop.", "Kind regards, Tom.", "What a mess..."],
    },
    openers=["Hi, ", "Hello there, ", "Good morning, ", "hey ", "Dear team, ", "Hello again, "],
    order=["{s}, order {o}{e}", "{s} ({o}){e}", "Order {o}: {s}{e}", "About order {o}, {s}{e}",
           "{s}, my order number is {o}{e}"],
)  # fmt: skip

UNSEEN = Phrases(
    said={
        "refund": [
            "Can I still return the {p} and be refunded?",
            "I sent you the {p} in March, so where is my money?",
            "Kindly pay me back for the {p}.", "The {p} does not suit me, please reimburse me.",
            "My refund for the {p} is ten euros short.",
            "I was billed for something I never bought, refund it.",
        ],
        "delivery": [
            "I have been waiting for the {p} since the 3rd.",
            "The tracking page for my {p} shows an error.",
            "Which day will you deliver the {p}?", "My {p} was delivered to the wrong house.",
            "No sign of my {p} so far, did the courier lose it?",
            "Why is my shipment taking so long?",
        ],
        "defect": [
            "The {p} arrived in pieces.", "Sadly my {p} is defective.",
            "My {p} snapped after two uses.",
            "The {p} you sent has a big scratch and a loose screw.",
        ],
        "account": [
            "Your website rejects my password.", "I want to close my account for good.",
            "My surname changed, how do I edit it in my profile?", "I think my account was hacked.",
            "I cannot sign in since the update.",
            "The confirmation e-mail for my new account is missing.",
        ],
        "question": [
            "Can you tell me the dimensions of the {p}?", "Is there a cheaper version of the {p}?",
            "Will the {p} be on sale in May?", "Do you sell spare parts for the {p}?",
            "Are your shops open on Sunday?", "What colours do you have for the {p}?",
        ],
    },
    broken={
        ELECTRIC: [
            "The switch on my {p} does nothing any more.", "Since this morning the {p} is dead.",
        ],
        ("backpack", "tent", "rain jacket"): ["The fabric of my {p} ripped."],
        ("office chair",): ["The backrest of my {p} cracked."],
        ("yoga mat",): ["My {p} is torn in the middle."],
        ("water bottle",): ["The lid of my {p} does not close."],
    },
    urgency={
        "high": ["Please treat this as urgent!", "I need help immediately.",
        "I must hear back today.",
                 "Reply asap please."],
        "low": ["No rush.", "Not urgent, any day is fine.", "Feel free to take your time with it."],
        "normal": ["Thank you in advance.", "That is really annoying.", "Best wishes, Ana."],
    },
    openers=["Hello, ", "Good evening, ", "Hi team, ", "Hey there, "],
    order=["{s} - order no. {o}{e}", "Regarding {o}: {s}{e}", "{s}, it is order {o}{e}"],
)  # fmt: skip

TYPOS = {
    "please": "pls", "because": "becuase", "received": "recieved", "address": "adress",
    "would": "woud", "about": "abuot", "working": "wroking", "already": "alredy", "your": "ur",
    "account": "acount", "still": "stil", "the": "teh", "with": "wiht", "and": "adn",
    "waiting": "wating", "you": "u", "does": "dose", "which": "wich", "arrived": "arived",
    "cannot": "cant", "password": "pasword", "want": "wnat", "delivered": "deliverd",
}  # fmt: skip


def ticket(rng: random.Random, phrases: Phrases, number: str) -> Row:
    """A message and its answer; `number` is the order, if the customer quotes one."""
    intent, urgency = rng.choice(INTENTS), rng.choice(URGENCIES)
    product: str | None = rng.choice(PRODUCTS)
    said = list(phrases.said[intent])
    if intent == "defect":
        said += [s for some, more in phrases.broken.items() if product in some for s in more]
    sentence = rng.choice(said)
    if "{p}" not in sentence:
        product = None
    text = _misspelt(rng, sentence).format(p=product)
    has_order = rng.random() < 0.55 and (intent, product) != ("question", None)
    order = number if has_order else None
    if order is not None:
        frame = rng.choice(phrases.order)
        text = text if frame.startswith("{s}") else _lower(text)
        text = frame.format(s=text[:-1], e=text[-1], o=order)
    elif rng.random() < 0.5:
        text = rng.choice(phrases.openers) + _lower(text)
    if urgency != "normal" or rng.random() < 0.5:
        text += " " + _misspelt(rng, rng.choice(phrases.urgency[urgency]))
    mood = rng.random()
    if mood < 0.15:  # in a hurry: no capitals
        text = text.lower().replace(order.lower(), order) if order else text.lower()
    elif mood < 0.21:  # angry
        text = text.upper()
    answer = {"intent": intent, "product": product, "urgency": urgency, "order": order}
    return {"input": text, "target": json.dumps(answer)}


def _lower(text: str) -> str:
    return text if text.startswith("I ") else text[0].lower() + text[1:]


def _misspelt(rng: random.Random, sentence: str) -> str:
    """In one sentence of four, one word as somebody types it who does not look."""
    words = sentence.split(" ")
    can = [i for i, word in enumerate(words) if word.lower() in TYPOS]
    if can and rng.random() < 0.25:
        i = rng.choice(can)
        typo = TYPOS[words[i].lower()]
        words[i] = _upper(typo) if words[i][0].isupper() else typo
    return " ".join(words)


def tickets(rng: random.Random) -> list[Row]:
    orders = [f"{letter}-{number}" for letter in "ABCD" for number in range(1000, 10000)]
    rng.shuffle(orders)  # each is used once at most
    rows: dict[str, Row] = {}
    while len(rows) < TRAIN + HELD_OUT:
        row = ticket(rng, SEEN if len(rows) < TRAIN else UNSEEN, orders.pop())
        rows.setdefault(row["input"].lower(), row)
    return list(rows.values())


def datasets() -> dict[str, list[Row]]:
    """Rows by file name under examples/."""
    files = {}
    for name, make in (("trails", trails), ("tickets", tickets)):
        rows = make(random.Random(name))
        files[f"{name}/train.jsonl"] = rows[:TRAIN]
        files[f"{name}/heldout.jsonl"] = rows[TRAIN:]
    return files


def encoded(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def main() -> None:
    for name, rows in datasets().items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(rows))
        print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main()
