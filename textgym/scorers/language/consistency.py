"""Whether the persons and things of a story stay the same: names, pronouns, colours, kinds and owners."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import EpisodewiseScorer, Scores
from textgym.scorers.language.story_words import (
    Word,
    gender_of,
    groups,
    listed,
    names,
    nouns,
    plural_nouns,
    story_words,
    titles,
)

__all__ = ["Consistency", "Inconsistency", "find_inconsistencies"]

_KINDS = ("persons", "pronouns", "things")
_NUM_RECENT = 3
"""Sentences for which a pronoun may refer to a person who is not a main one."""
_NUM_RECENT_UNKNOWN = 1
"""The same for one whose gender is not known: ``the doctor``."""
_NUM_NEAR = 40
"""Words of a sentence that are searched before and after a word, so that the cost is linear in the length."""
_MAX_PERSONS = 50
"""Persons that are kept, for the same reason."""

_NARRATOR = frozenset(("i", "me", "my", "mine", "myself"))
_GENDERS = {"she": "she", "her": "she", "hers": "she", "herself": "she"}
_GENDERS |= {"he": "he", "him": "he", "his": "he", "himself": "he"}
_PLURALS = frozenset(("they", "them", "their", "both"))
_OWNERS = {"his": "he", "her": "she", "my": "I"}
_OWNER_NOUNS = {"he": "a man", "she": "a woman", "I": "the narrator"}
_DEFINITE = frozenset(("the", "his", "her", "my", "their", "its", "this", "that"))
_DETERMINERS = _DEFINITE | {"a", "an", "another", "every", "no", "some"}
_OF_ONESELF = {
    (verb, noun)
    for verbs, objects in (
        ("pressed", "lips"), ("closed opened shut", "eyes"), ("shook", "head"), ("held", "breath"), ("did", "best"),
        ("changed lost", "mind"), ("kept", "word"), ("on", "way"), ("took", "time"), ("in", "own"),
    )
    for verb in verbs.split()
    for noun in objects.split()
}  # fmt: skip
"""Word before and word after a possessive pronoun that refers to the subject: ``closed her eyes``."""


@dataclass(frozen=True)
class Inconsistency:
    """A place at which a text contradicts its earlier words."""

    kind: str
    """``"persons"``, ``"pronouns"`` or ``"things"``."""
    start: int
    """First character of the word."""
    end: int
    """Character after the word."""
    message: str
    """One sentence."""


class Consistency(EpisodewiseScorer):
    """Share of the completion's sentences in which persons and things agree with the text before them.

    Formula: ``1 - sentences with a finding / sentences``. Findings are those of ``find_inconsistencies`` in the prompt
    and the completion, read as one text; those in the prompt do not count. Components: the same share for each kind of
    finding, ``persons``, ``pronouns`` and ``things``. Range: [0, 1]. Empty completion, or one without words: 0.
    Deterministic. Not incremental. Reads English.

    Made for short stories: the rules and the word lists (names, nouns for persons, things, colours) fit those of the
    embedded language model. It cannot see a wrong pronoun while a person of that gender is around, a name that its
    lists do not have, a person without a name who becomes another one ("the baker", "the nurse"), a fault within direct
    speech, places, numbers or what happened. A text that names nobody, or repeats one sentence, scores 1: combine it
    with other scorers.

    >>> texts = ["Tom lost his red hat. He found it.", "Tom lost his red hat. Leo found it.", "Tom sat. She sang.", ""]
    >>> scores = Consistency().score_components(TextBatch.from_texts(texts))
    >>> scores.total, scores.components["pronouns"]
    (array([1. , 0.5, 0.5, 0. ]), array([1. , 1. , 0.5, 0. ]))
    """

    score_range = (0.0, 1.0)
    components = _KINDS

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the shares of sentences without findings, of any kind and of each."""
        rows = [_shares(*pair) for pair in zip(batch.prompts, batch.completions, strict=True)]
        total, *shares = np.array(rows, dtype=np.float64).reshape(-1, 1 + len(_KINDS)).T
        return Scores(total, dict(zip(_KINDS, shares, strict=True)))


def _shares(prompt: str, completion: str) -> list[float]:
    reader = _Reader(prompt + completion, len(prompt))
    num_sentences = len({word.sentence for word in reader.words if word.end > len(prompt) and word.text[0].isalpha()})
    if num_sentences == 0:
        return [0.0] * (1 + len(_KINDS))
    faulty: dict[str, set[int]] = {kind: set() for kind in _KINDS}
    for found, sentence in reader.read():
        faulty[found.kind].add(sentence)
    return [1 - len(sentences) / num_sentences for sentences in (set[int]().union(*faulty.values()), *faulty.values())]


def find_inconsistencies(text: str, start: int = 0) -> list[Inconsistency]:
    """Return the places at which the persons and things of a story contradict its earlier words, in order.

    Reading the text once, it finds

    - persons: a name that nobody introduced ("Tom", after a story about Leo; introductions are "his brother Tom", "a
      boy called Tom", the first name of a story, all names of its first sentence); a name that does not fit its noun
      ("his sister Tom"); a relation that changes ("his sister Rosa", "his cousin Rosa"); in a fable, an animal with
      "the" that nobody introduced;
    - pronouns: he or she where no such person is near, himself or herself that is not the subject ("She closed his
      eyes"), him or her that could only be the subject ("The boss called him"), a narrator who enters a story told in
      the third person;
    - things: another colour, another owner, or another thing of the same kind in place of the first ("his key", "the
      hat").

    Direct speech, in double quotation marks, is read for names only. Rules prefer silence to a wrong finding: of the
    stories in the world of the embedded language model, fewer than 1 in 100 have one of persons or pronouns.

    Args:
        text: The story.
        start: Number of characters that are given: their names are introduced, and findings in them left out.

    >>> for found in find_inconsistencies("Leo lost his key. Then Tom found her hat."):
    ...     print(found.kind, found.start, found.end, found.message)
    persons 23 26 Tom has not been introduced; the text names Leo.
    pronouns 33 36 her has no antecedent; the persons near it are Leo and Tom.
    """
    return [found for found, _ in _Reader(text, start).read()]


@dataclass
class _Person:
    """A person or animal of the text."""

    gender: str
    """``she``, ``he``, or ``""`` while it is not known."""
    last: int
    """Sentence of the last mention."""


@dataclass
class _Thing:
    """A thing of the text."""

    colours: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    num_mentions: int = 0
    is_one: bool = True
    """Whether the text has only one of its kind."""


_Findings = Iterator[tuple[Inconsistency, int]]
"""Findings, each with its sentence."""


class _Reader:
    """Reads a text from its first word to its last and compares each word with those before."""

    def __init__(self, text: str, start: int) -> None:
        self.words = story_words(text)
        self.start = start
        self.persons: dict[str, _Person] = {}
        """By name, noun, or pronoun where the text begins with one."""
        self.main: set[str] = set()
        """Persons who may be meant by a pronoun in the whole text: those of the first sentence that has one."""
        self.main_sentence = 0
        self.relations: dict[str, str] = {}
        """Name -> noun before it, such as ``sister``."""
        self.has_name = False
        """Whether the main person, or a narrator, has got a name."""
        self.has_protagonist = False
        """Whether the main person was mentioned again, so that another first name needs an introduction."""
        self.has_narrator = False
        self.things: dict[str, _Thing] = {}
        self.first_of_group: dict[str, str] = {}
        """Title of a group of things -> its first one in the text."""
        self.seen: set[str] = set()
        """Words so far."""

    def read(self) -> _Findings:
        """Yield the findings after the given part, in order."""
        for i, word in enumerate(self.words):
            if word.text[0].isalpha():
                for kind, end, message in self._read_word(i, word):
                    if end > self.start:
                        yield Inconsistency(kind, word.start, end, message), word.sentence
                self.seen.add(word.lower)

    def _read_word(self, i: int, word: Word) -> Iterator[tuple[str, int, str]]:
        """Yield kind, end and message of what is wrong with a word."""
        if word.lower in _NARRATOR and not word.is_speech:
            is_late = word.sentence > self.main_sentence + 1  # "Sam was a dog. He lived with me."
            if self.has_protagonist and not self.has_narrator and is_late:
                yield "pronouns", word.end, f"{word.text} is a narrator in a story about {_joined(self.main)}."
            self.has_narrator = True
        elif word.lower in _GENDERS and not word.is_speech:
            if message := self._pronoun(i, word):
                yield "pronouns", word.end, message
        elif word.lower in _PLURALS:
            for person in self.persons.values():
                person.last = word.sentence
        elif word.text in names():
            name, last = self._whole_name(i, word)
            if message := self._name(i, last, name):
                yield "persons", self.words[last].end, message
        elif word.lower in nouns():
            if message := self._noun(i, word):
                yield "persons", word.end, message
        elif plural_nouns().get(word.lower):
            self._mention(word.lower, plural_nouns()[word.lower], word.sentence)
        elif self._is_unknown_name(i, word):
            self._mention(word.text, "", word.sentence)
        if message := self._thing(i, word):
            yield "things", word.end, message

    # Persons ------------------------------------------------------------------------------------------------------

    def _mention(self, key: str, gender: str, sentence: int, *, is_tied: bool = False) -> None:
        """Record a mention; a name that is tied to another person (``his sister Rosa``) is no main person's."""
        if key not in self.persons and len(self.persons) >= _MAX_PERSONS:
            others = [other for other in self.persons if other not in self.main] or list(self.persons)
            del self.persons[others[0]]
        person = self.persons.setdefault(key, _Person(gender, sentence))
        person.gender, person.last = gender or person.gender, sentence
        self.has_protagonist = self.has_protagonist or (key in self.main and sentence > self.main_sentence)
        if not self.main:
            self.main, self.main_sentence = {key}, sentence
        elif sentence == self.main_sentence and not is_tied and not any(map(_is_name, self.main)):
            self.main = {key} if _is_name(key) else self.main | {key}

    def _is_unknown_name(self, i: int, word: Word) -> bool:
        """Return whether a word is a name that is not listed: a capital within a sentence, or after one like that."""
        before = self._at(i - 1)
        is_inside = before[:1].isalpha() and before not in titles()
        is_name = is_inside or word.text in self.persons
        return word.text[0].isupper() and is_name and word.text not in listed("not names")

    def _whole_name(self, i: int, word: Word) -> tuple[str, int]:
        """Return a name, with the surname after a title, and its last word; an empty name if that is missing."""
        if word.text not in titles():
            return word.text, i
        j = i + 2 if self._at(i + 1) == "." else i + 1
        if self._at(j) == "and" and self._at(j + 1) in titles():  # Mr and Mrs Green
            j = j + 3 if self._at(j + 2) == "." else j + 2
        surname = self._at(j)
        if not surname[:1].isupper() or surname in listed("not names"):
            return "", i
        return f"{word.text} {surname}", j

    def _name(self, i: int, last: int, name: str) -> str:
        if not name:
            return ""
        word = self.words[i]
        gender, noun = names()[word.text], self._noun_before(i)
        relation = self.relations.setdefault(name, noun) if noun in listed("relatives") else noun
        message = ""
        if noun and nouns()[noun] not in ("", gender):
            message = f"{name} is the name of a {_adult(gender)}, not of a {noun}."
        elif relation != noun:
            message = f"{name} was the {relation} before and is the {noun} now."
        elif name not in self.persons and not noun and not self._is_introduced(i, last):
            known = [key for key in self.persons if _is_name(key)]
            message = f"{name} has not been introduced; the text names {_joined(known)}."
        self._mention(name, gender, word.sentence, is_tied=bool(noun))
        return message

    def _is_introduced(self, i: int, last: int) -> bool:
        """Return whether a name without a noun before it is introduced where it is mentioned first."""
        word, after = self.words[i], self._at(last + 1)
        is_apposition = self._is_apposition(i)
        if word.start < self.start or word.sentence == 0:
            self.has_name = self.has_name or not is_apposition
            return True
        if word.is_speech:  # a form of address, which can be the narrator's name
            is_address = self._at(i - 1) == "," or after in (",", "!", "?")
            is_narrator = self.has_narrator and not self.has_name
            self.has_name = self.has_name or is_narrator
            return not is_address or is_narrator or not any(map(_is_name, self.persons))
        if self._at(i - 1).lower() in ("called", "named", "met", "is", "was"):
            self.has_name = True
            return True
        if not self.has_protagonist and not self.has_narrator and not self.has_name:
            self.has_name = True
            self.main = {word.text}
            return True
        is_signature = any(other.lower in ("your", "yours", "love") for other in self._before(i))
        explaining = {",": (*_OWNERS, "a", "an", "the", "who"), "is": _OWNERS, "was": _OWNERS}
        is_explained = self._at(last + 2) in explaining.get(after, ())
        return is_apposition or is_signature or is_explained or self._is_one_of_several(i)

    def _is_one_of_several(self, i: int) -> bool:
        """Return whether names from a noun for several persons on lead to a name: ``her friends Ben and Leo``."""
        for word in reversed(self._before(i)):
            if word.lower in plural_nouns():
                return True
            if word.text not in names() and word.text not in (",", "and"):
                return False
        return False

    def _is_apposition(self, i: int) -> bool:
        """Return whether a noun and a comma precede a name: ``her brother, Tom``, ``a boy in the class, Tom``."""
        if self._at(i - 1) != ",":
            return False
        places = [j for j in range(i - len(self._before(i)), i) if self.words[j].lower in nouns()]
        return any(j == i - 2 or self._phrase(j)[0] in ("a", "an") for j in places)

    def _noun_before(self, i: int) -> str:
        """Return the noun for a person directly before a name: ``sister`` in ``his sister Rosa``."""
        noun = self._at(i - 1).lower()
        return noun if noun in nouns() and not self.words[i - 1].is_possessive else ""

    def _noun(self, i: int, word: Word) -> str:
        is_with_name = self._at(i + 1) in names() and not word.is_possessive
        if is_with_name or "be" in (self._at(i - 2), self._at(i - 3)):  # her sister Rosa, wants to be a painter
            return ""
        animals = [key for key in self.persons if key in listed("animals")]
        is_known = word.lower in self.persons or word.start < self.start or word.is_speech
        is_tied = self._at(i - 2).lower() in nouns()  # her friend the fox
        is_new = self._is_fable() and word.lower in listed("animals") and not is_known and not is_tied
        is_new = is_new and word.sentence > self.main_sentence and self._phrase(i)[0] == "the"
        self._mention(word.lower, nouns()[word.lower], word.sentence)
        return f"The {word.text} has not been introduced; the animals so far are {_joined(animals)}." if is_new else ""

    def _is_fable(self) -> bool:
        return any(key in listed("animals") for key in self.main)

    # Pronouns -----------------------------------------------------------------------------------------------------

    def _pronoun(self, i: int, word: Word) -> str:
        gender = _GENDERS[word.lower]
        subject = self._subject_before(i) if self._is_reflexive(i) else ""
        if subject and subject != gender:
            return f"{word.text} refers to a {_adult(gender)}, but the subject is a {_adult(subject)}."
        near = {key: person for key, person in self.persons.items() if self._is_near(key, person, word.sentence)}
        actor = self._subject_of(i, near) if self._is_object(i) else ""
        near.pop(actor, None)
        same = [person for person in near.values() if person.gender == gender]
        unknown = [person for person in near.values() if not person.gender]
        if same or unknown:
            self.has_protagonist = True
            if same:
                max(same, key=lambda person: person.last).last = word.sentence
            elif len(unknown) == 1:
                unknown[0].gender, unknown[0].last = gender, word.sentence
            return ""
        if self._is_resolved_later(i, gender):
            return ""
        if not self.persons and not self.has_narrator:  # a story may begin with a pronoun
            self._mention(word.lower, gender, word.sentence)
            return ""
        others = f"the {'other ' if actor else ''}persons near it are {_joined(near)}"
        return f"{word.text} has no antecedent; {others}."

    def _is_near(self, key: str, person: _Person, sentence: int) -> bool:
        most = _NUM_RECENT if person.gender or self._is_fable() else _NUM_RECENT_UNKNOWN
        return key in self.main or sentence - person.last <= most

    def _is_resolved_later(self, i: int, gender: str) -> bool:
        """Return whether a pronoun can mean a person who follows in its sentence, other than its own possession."""
        later = [word for word in self.words[i + 1 : i + _NUM_NEAR] if word.sentence == self.words[i].sentence]
        possessed = next((j for j, word in enumerate(later[:4]) if word.lower in nouns()), None)
        if possessed is not None and all(word.text.isalpha() for word in later[:possessed]):
            later = later[possessed + 1 :]  # his sister
            while later and later[0].text[0].isupper():  # Rosa
                later = later[1:]
        return any(gender_of(word) == gender for word in later)

    def _is_reflexive(self, i: int) -> bool:
        """Return whether a pronoun has to mean the subject: ``himself``, ``closed his eyes``."""
        around = (self._at(i - 1).lower(), self._at(i + 1).lower())
        return self._at(i).lower() in ("himself", "herself") or around in _OF_ONESELF

    def _is_object(self, i: int) -> bool:
        """Return whether a pronoun is the object of a verb, which cannot mean the subject: ``he saw him``."""
        word, before, after = (self._at(j).lower() for j in (i, i - 1, i + 1))
        is_object = word == "him" or (word == "her" and (not after[:1].isalpha() or after in listed("after objects")))
        return is_object and before not in listed("prepositions")

    def _subject_of(self, i: int, near: dict[str, _Person]) -> str:
        """Return the key of the person who is the subject of the clause of an object."""
        for word in reversed(self._before(i)):
            if word.is_speech or not word.text.isalpha() or word.lower in listed("clauses") | _DETERMINERS:
                return ""
            if word.lower in ("he", "she"):
                same = [key for key, person in near.items() if person.gender == word.lower]
                return max(same, key=lambda key: near[key].last, default="")
            key = next((key for key in (word.text, word.lower) if key in near), "")
            if key and not word.is_possessive:
                return key
        return ""

    def _subject_before(self, i: int) -> str:
        """Return the gender of the last person before a pronoun in its clause; empty if it is not known."""
        for word in reversed(self._before(i)):
            if word.is_speech or word.is_possessive or word.lower in ("who", "that", "and", "i", "they"):
                return ""
            if word.lower in ("he", "she"):
                return word.lower
            gender = gender_of(word)
            if gender is not None:
                known = self.persons.get(word.lower)
                return gender or (known.gender if known else "")
        return ""

    # Things -------------------------------------------------------------------------------------------------------

    def _thing(self, i: int, word: Word) -> str:
        noun, first = word.lower, i
        if f"{self._at(i - 1).lower()} {noun}" in groups():
            noun, first = f"{self._at(i - 1).lower()} {noun}", i - 1
        if noun not in groups():
            return ""
        determiner, adjectives = self._phrase(first)
        is_other = determiner == "another" or not listed("further").isdisjoint(adjectives)
        colours = {adjective for adjective in adjectives if adjective in listed("colours")}
        owner = "" if word.is_speech else _owner(determiner)
        message = ""
        if noun not in self.things:
            if determiner == "the" and not is_other:
                message = self._replaced(i, noun)
            self.first_of_group.setdefault(groups()[noun], noun)
        elif not is_other:
            thing, is_definite = self.things[noun], determiner in _DEFINITE or determiner.endswith("'s")
            is_recoloured = colours and thing.colours and colours.isdisjoint(thing.colours)
            is_reowned = thing.is_one and thing.owners and owner not in {"", *thing.owners}
            if is_definite and is_recoloured and self.seen.isdisjoint(listed("painting")):
                message = f"The {noun} was {_joined(thing.colours)} before and is {_joined(colours)} now."
            elif is_reowned and self.seen.isdisjoint(listed("giving")):
                before = _joined(_OWNER_NOUNS[other] for other in thing.owners)
                message = f"The {noun} belonged to {before} before and belongs to {_OWNER_NOUNS[owner]} now."
        thing = self.things.setdefault(noun, _Thing())
        thing.is_one = thing.is_one and (thing.num_mentions == 0 or determiner not in ("a", "an"))
        thing.colours |= colours
        thing.owners |= {owner} - {""}
        thing.num_mentions += 2 if determiner in _OWNERS or determiner.endswith("'s") else 1
        return message

    def _replaced(self, i: int, noun: str) -> str:
        """Return a message if ``the noun`` stands in place of another thing of its group."""
        group = groups()[noun]
        other = self.first_of_group.get(group)
        if other is None or group not in ("things lost", "keepsakes", "toys", "pets"):
            return ""
        is_described = self._at(i + 1) in ("that", "which", "who", "of", "from", "beside", "behind")
        if is_described or not self.seen.isdisjoint(listed("giving")):
            return ""
        if group == "pets" and (self._is_fable() or self.things[other].num_mentions == 1):
            return ""
        return f"The {noun} has not been mentioned, but a {other} has."

    # Words around -------------------------------------------------------------------------------------------------

    def _at(self, i: int) -> str:
        return self.words[i].text if 0 <= i < len(self.words) else ""

    def _before(self, i: int) -> list[Word]:
        """Return the words before a word in its sentence."""
        return [word for word in self.words[max(i - _NUM_NEAR, 0) : i] if word.sentence == self.words[i].sentence]

    def _phrase(self, first: int) -> tuple[str, list[str]]:
        """Return determiner and adjectives before a noun: ``his`` and ``[red, new]`` for ``his new red hat``."""
        adjectives: list[str] = []
        for word in reversed(self.words[max(first - 4, 0) : first]):
            if word.is_possessive:
                return f"{word.text}'s", adjectives
            if word.lower in _DETERMINERS:
                return word.lower, adjectives
            if not word.text.isalpha() or word.text[0].isupper():
                break
            adjectives.append(word.lower)
        return "", adjectives


def _is_name(key: str) -> bool:
    return key[0].isupper()


def _owner(determiner: str) -> str:
    """Return ``she``, ``he``, ``I`` or an empty string."""
    if determiner.endswith("'s"):
        return names().get(determiner.removesuffix("'s"), "")
    return _OWNERS.get(determiner, "")


def _adult(gender: str) -> str:
    return "woman" if gender == "she" else "man"


def _joined(words: Iterable[str]) -> str:
    return " and ".join(sorted(words)[:3]) or "nobody"
