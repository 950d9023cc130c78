"""Texts with faults in them: what a cut connection, a pasted fragment or a new version of a tool may bring."""

import random
from collections.abc import Iterator, Sequence

ALPHABET = "0123456789 %@/,.:[]()-+abcCmWkMBoxf_=\n\té"


def mutants(texts: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """`count` of them, always the same for a seed; each has one to four faults."""
    chance = random.Random(seed)
    faults = [_cut, _drop, _insert, _replace, _shuffle, _repeat, _swap_lines]
    for number in range(count):
        text = texts[number % len(texts)]
        for _ in range(chance.randint(1, 4)):
            text = chance.choice(faults)(text, chance)
        yield text


def _place(text: str, chance: random.Random) -> int:
    return chance.randint(0, len(text))


def _cut(text: str, chance: random.Random) -> str:
    at = _place(text, chance)
    return text[:at] if chance.random() < 0.5 else text[at:]


def _drop(text: str, chance: random.Random) -> str:
    at = _place(text, chance)
    return text[:at] + text[at + chance.randint(1, 5) :]


def _insert(text: str, chance: random.Random) -> str:
    at = _place(text, chance)
    return text[:at] + "".join(chance.choices(ALPHABET, k=chance.randint(1, 3))) + text[at:]


def _replace(text: str, chance: random.Random) -> str:
    at = _place(text, chance)
    return text[:at] + chance.choice(ALPHABET) + text[at + 1 :]


def _shuffle(text: str, chance: random.Random) -> str:
    words = text.split(" ")
    start = chance.randint(0, len(words))
    some = words[start : start + 12]
    chance.shuffle(some)
    return " ".join(words[:start] + some + words[start + 12 :])


def _repeat(text: str, chance: random.Random) -> str:
    at = _place(text, chance)
    return text[:at] + text[at : at + chance.randint(1, 40)] * 2 + text[at + 40 :]


def _swap_lines(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    chance.shuffle(lines)
    return "".join(lines)
