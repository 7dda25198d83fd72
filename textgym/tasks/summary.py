"""A passage in one sentence."""

from functools import cache
from typing import Any, ClassVar

from textgym.envs import TextGenEnv
from textgym.tasks.base import Row, Task
from textgym.tasks.world.summaries import summary
from textgym.tasks.world.vocabulary import spots, things

__all__ = ["SUMMARY", "TextGenSummaryEnv"]


def rows(seed: int, index: int, level: int) -> Row:
    """Return a passage of the world and its summary."""
    told = summary(seed, index, level)
    return {"document": told.passage, "summary": told.summary, "vocabulary": nouns()}


@cache
def nouns() -> tuple[str, ...]:
    """Return the things and places of the world, by which a summary may be unfaithful."""
    return tuple(form for thing in things() for form in (thing.singular, thing.plural)) + tuple(
        spot.name for spot in spots()
    )


def scorer() -> Any:
    """Return ROUGE-L with compression and faithfulness to the document."""
    from textgym.scorers import ROUGE, Compression, Faithfulness, WeightedSum

    return WeightedSum(
        {
            "rouge": (ROUGE("rougeL"), 0.6),
            "compression": (Compression(low=0.2, high=0.8, column="document"), 0.2),
            "faithful": (Faithfulness(source="document"), 0.2),
        }
    )


SUMMARY = Task(
    name="summary",
    id="TextGenSummary-v0",
    rows=rows,
    columns={"document": "the text to be summarised", "summary": "its summary, or a list of several"},
    target="summary",
    prompt="{document}\nSummary:",
    instruction="Summarise this text in one short sentence. Write nothing but the sentence.\n\n{document}",
    scorer=scorer,
    keywords={"max_prompt_tokens": 72, "max_new_tokens": 40},
    chat_keywords={"max_prompt_tokens": 160},
    success_score=0.9,
)


class TextGenSummaryEnv(TextGenEnv):
    """Summarise a passage in one sentence.

    ## Description
    Passages of three (level 1), four (level 2) or five to six sentences (level 3), in which weather and glimpses do
    not matter; the summary says who did what where, and how it ended. What the embedded LM learned from held summaries
    that copy the beginning, ramble or name others beside the good ones.

    ## Action Space
    ``Discrete(V)``: action i writes token i; EOS ends the summary.

    ## Observation Space
    ``Box(0, V, (112,), int64)``, the ids of the passage, ``Summary:`` and the summary, right-padded with V.

    ## Rewards
    At the end ``0.6 ROUGE-L + 0.2 compression + 0.2 faithfulness``, in [0, 1]. Compression is 1 for a text that is
    20 to 80 % as long as its document, faithfulness the share of its names, things and numbers that the document has.

    ## Starting State
    A passage of the split, ``"train"`` (2^20 a level) or ``"eval"`` (1000 others), and of the level (default: any).

    ## Episode End
    Terminated by EOS or after 40 tokens.

    ## Information
    As in ``TextGenEnv``, with ``score_normalised``: 0 is the untrained embedded LM, sampled, and 1 the optimum.

    ## Arguments
    ``split``, ``level``, ``data`` (with the columns ``document`` and ``summary``), ``columns`` and ``chat`` of
    ``textgym.tasks.task_keywords``, and those of ``TextGenEnv``.

    ## References
    Stiennon et al. 2020, Learning to summarize from human feedback (arXiv:2009.01325); Nan et al. 2021, Entity-level
    factual consistency of abstractive text summarization (arXiv:2102.09130).

    ## Version History
    * v0: initial version.

    >>> env = TextGenSummaryEnv(split="eval", level=1)
    >>> _ = env.reset(seed=0)
    """

    defaults: ClassVar[dict[str, Any]] = {"task": "summary"}
