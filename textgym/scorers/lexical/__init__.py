"""What a text looks like: scorers that need nothing but the text."""

from textgym.scorers.lexical.banned_words import BannedWords
from textgym.scorers.lexical.brackets import BalancedBrackets
from textgym.scorers.lexical.characters import CharacterShare
from textgym.scorers.lexical.distinct_n import DistinctN
from textgym.scorers.lexical.keywords import Keywords
from textgym.scorers.lexical.length import LengthBand
from textgym.scorers.lexical.readability import Readability
from textgym.scorers.lexical.regex import Regex
from textgym.scorers.lexical.repetition import Repetition
from textgym.scorers.lexical.rhyme import Rhyme
from textgym.scorers.lexical.shape import SentenceShape, WordShape
from textgym.scorers.lexical.syllables import Syllables

__all__ = [
    "BalancedBrackets",
    "BannedWords",
    "CharacterShare",
    "DistinctN",
    "Keywords",
    "LengthBand",
    "Readability",
    "Regex",
    "Repetition",
    "Rhyme",
    "SentenceShape",
    "Syllables",
    "WordShape",
]
