"""Words of English stories: names, nouns for persons and things with what they tell, and direct speech."""

import re
from functools import cache
from importlib import resources
from typing import NamedTuple

__all__ = ["Word", "gender_of", "groups", "listed", "names", "nouns", "plural_nouns", "story_words", "titles"]
__all__ += ["word_lists"]

_QUOTES = '"\u201c\u201d'
_find_tokens = re.compile(
    rf"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*['\u2019]?|[{_QUOTES}]|[.!?\u2026]+|\n\s*\n|[^\w\s]"
).finditer


@cache
def word_lists() -> dict[str, tuple[str, ...]]:
    """Return the lists of names, nouns for persons, things and colours, by their titles in ``story_words.txt``.

    >>> word_lists()["surnames"][:2]
    ('Lund', 'Brown')
    """
    text = resources.files(__package__).joinpath("story_words.txt").read_text(encoding="utf-8")
    pairs = (line.split(":", 1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {title: tuple(word.strip() for word in words.split(",")) for title, words in pairs}


@cache
def listed(title: str) -> frozenset[str]:
    """Return one of ``word_lists``."""
    return frozenset(word_lists()[title])


@cache
def _merged(**lists: tuple[str, ...]) -> dict[str, str]:
    return {word: gender for gender, group in lists.items() for title in group for word in word_lists()[title]}


@cache
def titles() -> dict[str, str]:
    """Return title before a surname -> gender, ``she`` or ``he``."""
    return _merged(she=("titles of women",), he=("titles of men",))


@cache
def names() -> dict[str, str]:
    """Return first name or title -> gender."""
    return titles() | _merged(she=("women", "more women"), he=("men", "more men"))


@cache
def nouns() -> dict[str, str]:
    """Return noun for one person -> gender, ``""`` for any."""
    lists = word_lists()
    either = {word: "" for title in ("persons", "trades", "animals", "more animals") for word in lists[title]}
    return either | _merged(she=("female persons",), he=("male persons",))


@cache
def plural_nouns() -> dict[str, str]:
    """Return plural of a noun for persons -> gender."""
    return {_plural(noun): gender for noun, gender in nouns().items()}


def _plural(noun: str) -> str:
    """Return the plural of a noun; wrong for rare ones, such as ``mouses``."""
    if noun.endswith("man"):
        return f"{noun[:-3]}men"
    if noun.endswith("wife"):
        return f"{noun[:-2]}ves"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return {"child": "children", "person": "people"}.get(
        noun, f"{noun}es" if noun.endswith(("s", "ch", "sh", "x")) else f"{noun}s"
    )


@cache
def groups() -> dict[str, str]:
    """Return thing -> title of its group."""
    found = ("things lost", "keepsakes", "toys", "pets", "machines", "instruments", "garments")
    return {word: title for title in found for word in word_lists()[title]}


class Word(NamedTuple):
    """A word or mark of a text."""

    text: str
    """As written, without a possessive or contracted ending."""
    lower: str
    start: int
    end: int
    sentence: int
    is_speech: bool
    is_possessive: bool


def story_words(text: str) -> list[Word]:
    """Return the words and marks of a text; direct speech with its ``he said`` counts as one sentence."""
    found: list[Word] = []
    sentence, is_speech, ended = 0, False, False
    for match in _find_tokens(text):
        token, start, end = match[0], *match.span()
        if token.isspace():
            is_speech, ended = False, True
        elif token in _QUOTES:
            opens = token == "\u201c" or (token == '"' and (start == 0 or text[start - 1] in " \n\t(\u2014"))
            if opens:
                sentence, ended = sentence + ended, False
            elif is_speech:
                after = text[end : end + 20].split()
                ended = ended and not (after and (after[0][0].islower() or after[0] in names()))
            is_speech = opens
        else:
            if token[0].isalpha():
                sentence, ended = sentence + (ended and not is_speech), False
            elif token[0] in ".!?\u2026":
                ended = not (found and found[-1].text in titles())
            base = re.split("['\u2019]", token)[0] if token[0].isalpha() else token
            is_possessive = base != token and token[len(base) + 1 :].lower() in ("", "s")
            found.append(Word(base, base.lower(), start, end, sentence, is_speech, is_possessive))
    return found


def gender_of(word: Word) -> str | None:
    """Return the gender of a name or noun for a person, ``""`` if it may be any, None for other words."""
    return names().get(word.text, nouns().get(word.lower))
