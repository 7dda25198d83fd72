"""What a text says and how well: sentiment, manners, spelling, grammar, language."""

from textgym.scorers.language.common_words import CommonWords
from textgym.scorers.language.grammar import Grammar
from textgym.scorers.language.language import Language
from textgym.scorers.language.profanity import Profanity
from textgym.scorers.language.sentiment import Sentiment
from textgym.scorers.language.spelling import Spelling

__all__ = ["CommonWords", "Grammar", "Language", "Profanity", "Sentiment", "Spelling"]
