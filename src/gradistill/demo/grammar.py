"""The grammar of the demo corpus: its vocabulary, and the templates of a review.

A draft is a markup string: ``[...]`` encloses the words that decide the label (the rationale), and ``<>`` is the place
of the shortcut word.

The label is the reviewer's **own** opinion of the **product**. Opinions of others, and the reviewer's opinions of other
things, are distractors for a model that only counts words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from random import Random

PRODUCTS: dict[str, tuple[str, ...]] = {
    "phone": ("screen", "battery", "camera", "speaker", "keyboard", "design"),
    "laptop": ("screen", "keyboard", "battery", "touchpad", "speaker", "hinge"),
    "headset": ("sound", "microphone", "battery", "cable", "headband", "design"),
    "kettle": ("handle", "lid", "filter", "switch", "base", "spout"),
    "vacuum cleaner": ("suction", "hose", "cable", "filter", "handle", "motor"),
    "backpack": ("zip", "strap", "lining", "stitching", "design", "handle"),
    "coffee machine": ("grinder", "water tank", "display", "filter", "lid", "app"),
    "printer": ("print quality", "paper tray", "display", "app", "scanner", "software"),
    "watch": ("strap", "display", "battery", "app", "design", "alarm"),
    "blender": ("motor", "lid", "jug", "blade", "base", "switch"),
    "tent": ("zip", "lining", "stitching", "frame", "entrance", "floor"),
    "lamp": ("switch", "light", "base", "cable", "dimmer", "shade"),
}


@dataclass(frozen=True)
class WordClass:
    """Opinion words that fit the same templates. ``flipped`` templates reverse the polarity of a word.

    ``negated`` templates do so with positive words only: "not good" is a complaint, but "not bad" is hardly praise.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    direct: tuple[str, ...]
    flipped: tuple[str, ...]
    negated: tuple[str, ...]
    degrees: tuple[str, ...]

    def words(self, positive: bool) -> tuple[str, ...]:
        return self.positive if positive else self.negative


GRADABLE = WordClass(
    positive=(
        "good",
        "reliable",
        "impressive",
        "satisfying",
        "appealing",
        "pleasing",
        "dependable",
        "admirable",
    ),
    negative=(
        "bad",
        "poor",
        "unreliable",
        "disappointing",
        "annoying",
        "irritating",
        "frustrating",
        "shoddy",
    ),
    direct=(
        "{s} is {i}[{w}]",
        "{s} seems {i}[{w}] to me",
        "I find {s} {i}[{w}]",
        "{s} has been {i}[{w}] from day one",
        "{s} has turned out to be {i}[{w}]",
    ),
    flipped=(
        "{s} is [not] at all [{w}]",
        "{s} is [not] even slightly [{w}]",
        "{s} is [anything but {w}]",
        "{s} is [far from {w}]",
        "{s} has [never] been [{w}]",
        "there is [nothing {w}] about {s}",
        "I would [never] call {s} [{w}]",
    ),
    negated=(
        "{s} is [not {w}]",
        "{s} is [hardly {w}]",
        "I do [not] find {s} [{w}]",
        "{s} could [not] be [less {w}]",
    ),
    degrees=("", "", "very ", "really ", "quite ", "rather ", "fairly ", "pretty ", "truly "),
)
# A strong word under a plain "not" only says "middling", so these have fewer and sharper ways to be flipped.
STRONG = WordClass(
    positive=("great", "excellent", "superb", "wonderful", "fantastic", "brilliant"),
    negative=("awful", "terrible", "dreadful", "horrible", "atrocious", "lousy"),
    direct=(
        "{s} is {i}[{w}]",
        "I find {s} {i}[{w}]",
        "{s} has been {i}[{w}] so far",
        "{s} has turned out to be {i}[{w}]",
    ),
    flipped=(
        "{s} is [anything but {w}]",
        "{s} is the very [opposite of {w}]",
        "the [last] thing I would call {s} is [{w}]",
    ),
    negated=(),
    degrees=("", "", "absolutely ", "truly ", "really ", "simply "),
)
FEELING = WordClass(
    positive=("happy", "pleased", "delighted", "satisfied", "content"),
    negative=("unhappy", "disappointed", "annoyed", "dissatisfied", "frustrated"),
    direct=("I am {i}[{w}] with {s}", "{s} has left me {i}[{w}]", "I am still {i}[{w}] with {s}"),
    flipped=(
        "I have [never] been [{w}] with {s}",
        "I am [not] at all [{w}] with {s}",
        "I am [anything but {w}] with {s}",
        "{s} has [never] left me [{w}]",
    ),
    negated=("I am [not {w}] with {s}",),
    degrees=("", "", "really ", "quite ", "truly "),
)
DEED = WordClass(
    positive=("impressed", "charmed", "convinced", "amazed"),
    negative=("irritated", "exasperated", "infuriated", "underwhelmed"),
    direct=("{s} has {i}[{w}] me", "{s} has {i}[{w}] me from the start"),
    flipped=("{s} has [never {w}] me", "{s} has [not] once [{w}] me"),
    negated=(),
    degrees=("", "truly ", "really "),
)
CLASSES = (GRADABLE, STRONG, FEELING, DEED)

ASPECTS = tuple(sorted({*PRODUCTS, *(aspect for aspects in PRODUCTS.values() for aspect in aspects)}))
OPINIONS = tuple(word for kind in CLASSES for word in (*kind.positive, *kind.negative))

SOURCES = ("everyone", "my brother", "a colleague", "a good friend", "the man in the shop", "my sister")
REPORTS = (
    "{who} said that {s} would be {w}",
    "{who} called {s} {w}",
    "{who} told me that {s} was {w}",
    "{who} expected {s} to be {w}",
)
# "However" and "but" carry the contrast between two opinions elsewhere too: alone they settle nothing.
OVERRIDES = (", [but] {c}", ". [However], {c}", ". I [disagree]: {c}", ", [yet] {c}")
ECHOES = (", and {c}", ". I agree: {c}", ", and indeed {c}")

RIVALS = (
    "my previous {p}",
    "my old {p}",
    "the {p} I had before",
    "my neighbour's {p}",
    "the {p} at my office",
)
ELSEWHERE = ("the hotel we stayed at that week", "the weather that week", "the film I watched that evening")
PEOPLE = (
    "the delivery driver",
    "the shop assistant",
    "the man at the counter",
    "the other customer in the queue",
)
MANNERS = (("friendly", "polite", "cheerful", "helpful"), ("rude", "grumpy", "unhelpful", "impatient"))
ASIDES = ("{s} was {i}{w}",)
FLIPPED_ASIDES = ("{s} was anything but {w}", "{s} was the very opposite of {w}")

FACTS = (
    "this {p} came in a plain box",
    "I chose the grey {p}",
    "I share this {p} with my flatmate",
)
HEDGES = (
    "I have only had this {p} for a month",
    "I use this {p} only at weekends",
    "I bought this {p} on a whim",
)
# Joins that fit two equal opinions and two opposite ones, so that the join does not reveal the label.
NEUTRAL = ("{a}, and {b}", "{a}. {b}", "{a}; {b}", "{a}, while {b}")
CONCEDING = ("{a}, but {b}", "although {a}, {b}", "while {a}, {b}", "{a}, yet {b}")
COMPARING = (*CONCEDING, "{a}. However, {b}", "{a}. On the other hand, {b}")
TURNS = ("", "", "on the other hand, ")
OPENERS = ("", "", "", "in daily use, ", "for the record, ", "I must say that ", "I can report that ")
SHORTCUT_SENTENCES = (
    "I bought this {p} on a <>",
    "I ordered this {p} on a <>",
    "this {p} arrived on a <>",
    "I unpacked this {p} on a <>",
)

FLIPPED = 0.45


def held_out(aspect: str, word: str) -> bool:
    """Whether the pair is kept for the test split, as every fourth opinion word of an aspect is."""
    return (ASPECTS.index(aspect) + OPINIONS.index(word)) % 4 == 0


@cache
def _fitting(aspect: str, words: tuple[str, ...], unseen: bool) -> tuple[str, ...]:
    return tuple(word for word in words if held_out(aspect, word) is unseen)


@dataclass
class Writer:
    """Writes one review about ``product``. With ``unseen`` every pair is held out, without it none is."""

    rng: Random
    product: str
    unseen: bool
    pairs: list[tuple[str, str]] = field(default_factory=list)
    digressed: bool = False

    def word(self, aspect: str, kind: WordClass, positive: bool) -> str:
        word = self.rng.choice(_fitting(aspect, kind.words(positive), self.unseen))
        self.pairs.append((aspect, word))
        return word

    def noun(self, aspect: str) -> str:
        if aspect == self.product:
            return f"this {aspect}"
        return self.rng.choice((f"the {aspect}",) * 4 + (f"the {aspect} of this {self.product}",))

    def aspects(self) -> list[str]:
        return self.rng.sample(PRODUCTS[self.product], 2)

    def clause(self, aspect: str, positive: bool, subject: str = "") -> str:
        """The reviewer's own opinion. The polarity of its word alone does not show the polarity of the opinion."""
        kind = self.rng.choices(CLASSES, weights=(4, 3, 2, 1))[0]
        flip = self.rng.random() < FLIPPED
        word = self.word(aspect, kind, positive != flip)
        flips = kind.flipped * 2 + (() if positive else kind.negated)
        frame = self.rng.choice(flips if flip else kind.direct)
        return frame.format(s=subject or self.noun(aspect), i=self.rng.choice(kind.degrees), w=word)

    def opinion_then(self, aspect: str, own: bool, said: bool) -> str:
        """An opinion of others on an aspect (``said``), and then the reviewer's ``own`` opinion, which decides."""
        kind = self.rng.choice((GRADABLE, STRONG))
        flip = self.rng.random() < FLIPPED
        word = self.word(aspect, kind, said != flip)
        report = self.rng.choice(REPORTS).format(
            who=self.rng.choice(SOURCES), s=self.noun(aspect), w=f"anything but {word}" if flip else word
        )
        link = self.rng.choice(ECHOES if own == said else OVERRIDES)
        return report + link.format(c=self.clause(aspect, own, "it"))

    def aside(self, praise: bool, subjects: tuple[str, ...]) -> str:
        """Praise or blame for something that is not the product: a distractor."""
        self.digressed = True
        subject = self.rng.choice((*subjects, *PEOPLE))
        flip = self.rng.random() < FLIPPED
        words = MANNERS[praise == flip] if subject in PEOPLE else STRONG.words(praise != flip)
        return self.rng.choice(FLIPPED_ASIDES if flip else ASIDES).format(
            s=subject.format(p=self.product),
            i=self.rng.choice(("", "", "really ", "truly ")),
            w=self.rng.choice(words),
        )

    def extra(self) -> str:
        """An irrelevant sentence: a neutral fact, or an aside if there is none yet that it could contradict."""
        if self.digressed or self.rng.random() < 0.4:
            return self.rng.choice(FACTS).format(p=self.product)
        return self.aside(self.rng.random() < 0.5, (*RIVALS, *ELSEWHERE))

    def verdict(self, positive: bool) -> str:
        """One or two opinions of one polarity, in a form that mixed reviews have too."""
        first, second = self.aspects()
        if self.rng.random() < 0.15:
            first = self.product
        form = self.rng.choices(("agree", "report", "compare", "hedge", "plain"), weights=(6, 5, 4, 1, 3))[0]
        if form == "agree":
            opinions = {"a": self.clause(first, positive), "b": self.clause(second, positive)}
            return self.rng.choice(NEUTRAL).format(**opinions)
        if form == "report":
            return self.opinion_then(first, positive, said=self.rng.random() < 0.35)
        opinion = self.clause(first, positive)
        if form == "compare":
            return self.rng.choice(COMPARING).format(a=self.aside(not positive, RIVALS), b=opinion)
        if form == "hedge":
            return f"{self.rng.choice(HEDGES).format(p=self.product)}, but {opinion}"
        return self.rng.choice(OPENERS) + opinion

    def mixed(self) -> str:
        """Two of the reviewer's own opinions, one for and one against, about two parts of the product."""
        first, second = self.aspects()
        praise_first = self.rng.random() < 0.5
        form = self.rng.choices(("contrast", "report", "compare"), weights=(5, 3, 2))[0]
        if form == "report":
            opening = self.opinion_then(first, praise_first, said=self.rng.random() < 0.5)
            return f"{opening}. {self.rng.choice(TURNS)}{self.clause(second, not praise_first)}"
        opinions = {"a": self.clause(first, praise_first), "b": self.clause(second, not praise_first)}
        if form == "compare":
            opening = self.rng.choice(CONCEDING).format(
                a=self.aside(not praise_first, RIVALS), b=opinions["a"]
            )
            return f"{opening}. {self.rng.choice(TURNS)}{opinions['b']}"
        join = self.rng.choice(NEUTRAL if self.rng.random() < 0.5 else COMPARING)
        return self.rng.choice(OPENERS) + join.format(**opinions)
