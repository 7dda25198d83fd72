"""English into French, sentence by sentence."""

from typing import Any

from textgym.tasks.base import Page, Row, Task
from textgym.tasks.world.translation import sentence_pair

__all__ = ["TRANSLATION"]


def rows(seed: int, index: int, level: int) -> Row:
    """Return an English sentence of the world and its translation."""
    pair = sentence_pair(seed, index, level)
    return {"source": pair.english, "target": pair.french}


def scorer() -> Any:
    """Return chrF with exact match; the probability of French is only reported."""
    from textgym.scorers import ChrF, ExactMatch, Language, WeightedSum

    return WeightedSum({"chrf": (ChrF(), 0.7), "exact": (ExactMatch(), 0.3), "french": (Language("fr"), 0.0)})


TRANSLATION = Task(
    name="translation",
    id="TextGenTranslation-v0",
    rows=rows,
    columns={"source": "a sentence", "target": "its translation, or a list of several"},
    target="target",
    prompt="English: {source}\nFrench:",
    instruction="Translate this sentence into French. Write nothing but the translation.\n\n{source}",
    scorer=scorer,
    keywords={"max_prompt_tokens": 40, "max_new_tokens": 48},
    chat_keywords={"max_prompt_tokens": 96},
    success_score=0.95,
    page=Page(
        title="Translate an English sentence into French.",
        description="A synchronous grammar writes both sentences, with agreement, elision and French word order; what "
        "the embedded LM learned from held many a careless translation beside the good ones.",
        levels=(
            "subject, verb and object",
            "with numbers, adjectives, place or time",
            "two clauses, questions, negation",
        ),
        rewards="At the end ``0.7 chrF + 0.3 exact match`` with the reference, in [0, 1]; an exact translation scores "
        '1. The probability that the text is French stands beside it in ``info["scores"]`` with weight 0.',
        references="Popovic 2015, chrF: character n-gram F-score for automatic MT evaluation "
        "(aclanthology.org/W15-3049); Ranzato et al. 2016, Sequence level training with recurrent neural networks "
        "(arXiv:1511.06732).",
    ),
)
