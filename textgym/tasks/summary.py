"""A passage in one sentence."""

from functools import cache
from typing import Any

from textgym.tasks.base import Page, Row, Task
from textgym.tasks.world.summaries import summary
from textgym.tasks.world.vocabulary import spots, things

__all__ = ["SUMMARY"]


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
    page=Page(
        title="Summarise a passage in one sentence.",
        description="Weather and glimpses in a passage do not matter; the summary says who did what where, and how it "
        "ended. What the embedded LM learned from held summaries that copy the beginning, ramble or name others beside "
        "the good ones.",
        levels=("passages of three sentences", "of four", "of five to six"),
        rewards="At the end ``0.6 ROUGE-L + 0.2 compression + 0.2 faithfulness``, in [0, 1]. Compression is 1 for a "
        "text that is 20 to 80 % as long as its document, faithfulness the share of its names, things and numbers that "
        "the document has.",
        references="Stiennon et al. 2020, Learning to summarize from human feedback (arXiv:2009.01325); Nan et al. "
        "2021, Entity-level factual consistency of abstractive text summarization (arXiv:2102.09130).",
    ),
)
