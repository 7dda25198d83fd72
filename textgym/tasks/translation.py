"""English into French, sentence by sentence."""

from typing import Any, ClassVar

from textgym.envs import TextGenEnv
from textgym.tasks.base import Row, Task
from textgym.tasks.world.translation import sentence_pair

__all__ = ["TRANSLATION", "TextGenTranslationEnv"]


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
)


class TextGenTranslationEnv(TextGenEnv):
    """Translate an English sentence into French.

    ## Description
    A synchronous grammar writes both sentences, with agreement, elision and French word order; what the embedded LM
    learned from held many a careless translation beside the good ones.

    | level | sentences |
    |---|---|
    | 1 | subject, verb and object |
    | 2 | with numbers, adjectives, place or time |
    | 3 | two clauses, questions, negation |

    ## Action Space
    ``Discrete(V)``: action i writes token i; EOS ends the translation.

    ## Observation Space
    ``Box(0, V, (88,), int64)``, the ids of ``English: ... French:`` and of the translation, right-padded with V.

    ## Rewards
    At the end ``0.7 chrF + 0.3 exact match`` with the reference, in [0, 1]; an exact translation scores 1. The
    probability that the text is French is told beside it in ``info["scores"]`` and not paid.

    ## Starting State
    A sentence of the split, ``"train"`` (2^20 a level) or ``"eval"`` (1000 others), and of the level (default: any).

    ## Episode End
    Terminated by EOS or after 48 tokens.

    ## Information
    As in ``TextGenEnv``, with ``score_normalised``: 0 is the untrained embedded LM, sampled, and 1 the optimum.

    ## Arguments
    ``split``, ``level``, ``data`` (with the columns ``source`` and ``target``), ``columns`` and ``chat`` of
    ``textgym.tasks.task_keywords``, and those of ``TextGenEnv``.

    ## References
    Popovic 2015, chrF: character n-gram F-score for automatic MT evaluation (aclanthology.org/W15-3049); Ranzato et
    al. 2016, Sequence level training with recurrent neural networks (arXiv:1511.06732).

    ## Version History
    * v0: initial version.

    >>> env = TextGenTranslationEnv(split="eval", level=1)
    >>> _ = env.reset(seed=0)
    """

    defaults: ClassVar[dict[str, Any]] = {"task": "translation"}
