"""Whether a text is right, where that can be checked."""

from textgym.scorers.verifiable.checker import Checker
from textgym.scorers.verifiable.math_answer import MathAnswer
from textgym.scorers.verifiable.numeric_answer import NumericAnswer
from textgym.scorers.verifiable.reasoning_gym import ReasoningGym
from textgym.scorers.verifiable.valid_json import JSONSchema, ValidJSON

__all__ = ["Checker", "JSONSchema", "MathAnswer", "NumericAnswer", "ReasoningGym", "ValidJSON"]
