"""Texts of document lines in Russian and English: one inventory to train on, another to be tested on.

Held-out lines come from the sentences and templates in `HELD_OUT`. Training lines come from the word lists and the
word builders in `TRAIN_WORDS` and `SYLLABLES`, and `training_text` refuses every line with a word of four or more
letters that the held-out inventory could produce. What the two share is the alphabet, words of up to three letters,
and numbers.
"""

# ruff: noqa: RUF001 - Cyrillic letters on purpose

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from line_words import HELD_OUT, LETTERS, SYLLABLES, TRAIN_WORDS

if TYPE_CHECKING:
    import random

LANGUAGES = ("ru", "en")
SHARED_LENGTH = 3
"""Words up to this many letters ("и", "для", "the") may be in both inventories."""

_NUMBERS = (
    "~", "~#", "~##", "~###", "~####", "~ ###", "~# ###", "~## ###,##", "~,##", "~#,##", "~.##", "~#,###.##", "~##.##",
    "0#.1#.20##", "~#.0~.19##", "1#/0~/20##", "20##-0~-2#", "~#:##", "~#%", "~,#%", "№ ~##", "№~#", "#~##", "(~##)",
    "~/~", "~#-~#", "##-##-##", "+~ (###) ###-##-##", "######", "##########", "~##-###", "$~##", "€~#.##", "£~,###",
    "~## €", "$~", "#~-~##/~#", "~#°", "~*~=~#", "~+#=~", "~#.", "~)", "#~;", "[~]", "~# & ~",
)  # fmt: skip
_TWINS = set("ABCEHKMOPTXaceopxy" + "АВСЕНКМОРТХасеорху")
_WORD = re.compile(r"[^\W\d_]+")
_SLOT = re.compile(r"\{(\w+)\}")


def held_out_text(rng: random.Random, language: str) -> str:
    """Draw one held-out line."""
    return _digits(rng, _expand(rng, HELD_OUT[language], "{line}"))


def _expand(rng: random.Random, grammar: dict[str, list[str]], text: str) -> str:
    """Fill every {slot} of a template, slots within slots included."""
    while match := _SLOT.search(text):
        text = text[: match.start()] + rng.choice(grammar[match[1]]) + text[match.end() :]
    return text


def _digits(rng: random.Random, text: str) -> str:
    """Replace each # by a digit and each ~ by a digit from 1 to 9."""
    digits = (rng.choice("123456789") if c == "~" else rng.choice("0123456789") if c == "#" else c for c in text)
    return "".join(digits)


def words_of(text: str) -> set[str]:
    """Return the words of a text that are long enough to be told apart, in lower case."""
    return {word.lower() for word in _WORD.findall(text) if len(word) > SHARED_LENGTH}


@lru_cache(maxsize=1)
def held_out_words() -> frozenset[str]:
    """Return every word that a held-out line can hold."""
    lists = [texts for grammar in HELD_OUT.values() for texts in grammar.values()]
    return frozenset(word for texts in lists for text in texts for word in words_of(_SLOT.sub("", text)))


def training_text(rng: random.Random, language: str, *, longest: int = 48) -> str:
    """Draw one training line of up to `longest` characters that shares no word of four letters with the held-out ones."""
    while True:
        text = _training_candidate(rng, language, longest)
        if text and not words_of(text) & held_out_words() and not _ambiguous(text):
            return text


def _ambiguous(text: str) -> bool:
    """Tell whether a text reads the same in Russian and in English letters, as "CAP" does."""
    letters = set("".join(_WORD.findall(text)))
    return bool(letters) and letters <= _TWINS


def _training_candidate(rng: random.Random, language: str, longest: int) -> str:
    limit = rng.choice((rng.randint(2, 12), rng.randint(8, 28), rng.randint(20, longest)))
    parts: list[str] = []
    mostly_numbers = rng.random() < 0.15
    capitals = rng.random() < 0.08
    sentence = rng.random() < 0.6
    while True:
        part = _training_number(rng) if rng.random() < (0.6 if mostly_numbers else 0.13) else _word(rng, language)
        if not parts and sentence and part:
            part = part[0].upper() + part[1:]
        if len(" ".join([*parts, part])) > limit:
            break
        parts.append(_punctuated(rng, part))
    text = " ".join(parts)
    text = text.upper() if capitals else text
    return text[:-1].rstrip() + rng.choice(".:!?.") if rng.random() < 0.15 and len(text) > 4 else text


def _training_number(rng: random.Random) -> str:
    return _digits(rng, rng.choice(_NUMBERS))


def _word(rng: random.Random, language: str) -> str:
    """Return a listed word, a built word, or now and then a heap of letters, an address or an abbreviation."""
    (build,) = rng.choices(_WORDS, cum_weights=_WORD_SHARES)
    return build(rng, language)


def _from_list(rng: random.Random, language: str) -> str:
    return rng.choice(_listed(language))


def _pronounceable(rng: random.Random, language: str) -> str:
    return _cased(rng, _built(rng, language))


def _letters(rng: random.Random, language: str) -> str:
    return _cased(rng, "".join(rng.choice(LETTERS[language]) for _ in range(rng.randint(1, 8))))


def _initials(rng: random.Random, language: str) -> str:
    return ".".join(rng.choice(LETTERS[language]).upper() for _ in range(rng.randint(1, 2))) + "."


def _hyphenated(rng: random.Random, language: str) -> str:
    return rng.choice(_listed(language)).title() + "-" + _built(rng, language)


def _quoted(rng: random.Random, language: str) -> str:
    return rng.choice(("«{}»", '"{}"', "({})", "'{}'")).format(_built(rng, language))


def _abbreviation(rng: random.Random, language: str) -> str:
    return "".join(rng.choice(LETTERS[language].upper()) for _ in range(rng.randint(2, 4)))


def _mail_address(rng: random.Random, _: str) -> str:
    return f"{_built(rng, 'en')}@{_built(rng, 'en')}.{rng.choice(('com', 'org', 'ru', 'net'))}"


_WORDS = (_from_list, _pronounceable, _letters, _initials, _hyphenated, _quoted, _abbreviation, _mail_address)
_WORD_SHARES = (0.3, 0.82, 0.9, 0.93, 0.96, 0.98, 0.99, 1.0)


@lru_cache(maxsize=2)
def _listed(language: str) -> tuple[str, ...]:
    """Return the listed training words that no held-out line can hold."""
    return tuple(word for word in TRAIN_WORDS[language].split() if not words_of(word) & held_out_words())


@lru_cache(maxsize=2)
def _syllables(language: str) -> list[list[str]]:
    return [[part.replace("-", "") for part in parts.split()] for parts in SYLLABLES[language]]


def _built(rng: random.Random, language: str) -> str:
    onsets, vowels, codas = _syllables(language)
    count = rng.choices((1, 2, 3, 4), (20, 45, 28, 7))[0]
    return "".join(rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas) for _ in range(count))


def _cased(rng: random.Random, word: str) -> str:
    kind = rng.random()
    return word.title() if kind < 0.25 else word.upper() if kind < 0.31 else word


def _punctuated(rng: random.Random, part: str) -> str:
    kind = rng.random()
    if kind < 0.76:
        return part
    if kind < 0.94:
        return part + rng.choice(",,,,....::;!?")
    if kind < 0.97:
        return rng.choice(("«{}»", '"{}"', "#{}", "<{}>", "_{}", "{}_", "@{}")).format(part)
    return part + rng.choice((" -", " —", " /", "/", " &", " =", " @", " +"))
