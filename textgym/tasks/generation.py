"""Stories with an aim: sentiment, topic, length, style or format. ``gym.make("TextGen-v0", task="topic")`` is one."""

from typing import Any

from textgym.tasks.base import Row, Task
from textgym.tasks.world import stable_rng, story

__all__ = ["FORMAT", "LENGTH", "SENTIMENT", "STYLE", "TOPIC"]

SEA_WORDS = ("sea", "boat", "ship", "beach", "island", "wave", "waves", "fish", "harbour", "sailor", "sand", "shells")
DIRECT_SPEECH = r'"[A-Z][^"]{3,}[.,!?]"'
PLAIN_SENTENCES = r"[^\"!?]{8,}\."


def rows(seed: int, index: int, level: int) -> Row:
    """Return the first words of a story."""
    rng = stable_rng(seed, index, 40)
    words = story(seed, index).split()
    return {"opening": " ".join(words[: rng.randint(4, 7)])}


def about_the_sea() -> Any:
    """Return 1 for two words of the sea, 1/2 for one."""
    from textgym.scorers import Affine, Clip, Keywords

    return Clip(Affine(Keywords(SEA_WORDS), len(SEA_WORDS) / 2), 0.0, 1.0)


def of_twenty_words() -> Any:
    """Return 1 for 18 to 22 words, falling linearly outside."""
    from textgym.scorers import LengthBand

    return LengthBand(18, 22, unit="words")


def direct_speech() -> Any:
    """Return 1 where somebody speaks."""
    from textgym.scorers import Regex

    return Regex(DIRECT_SPEECH)


def plain_sentences() -> Any:
    """Return 1 for whole sentences that all end in a full stop."""
    from textgym.scorers import Regex

    return Regex(PLAIN_SENTENCES, mode="fullmatch")


def sentiment() -> str:
    """Return the name of VADER's compound score."""
    return "sentiment"


def _story_task(name: str, scorer: Any, instruction: str, max_new_tokens: int, success_score: float) -> Task:
    return Task(
        name=name,
        rows=rows,
        columns={"opening": "the beginning of a text"},
        prompt="{opening}",
        instruction=f"Continue this story with one or two sentences{instruction}: {{opening}}",
        scorer=scorer,
        keywords={"max_prompt_tokens": 32, "max_new_tokens": max_new_tokens},
        chat_keywords={"max_prompt_tokens": 96, "max_new_tokens": 48},
        num_levels=1,
        success_score=success_score,
    )


SENTIMENT = _story_task("sentiment", sentiment, " that make the reader happy", 32, 0.5)
TOPIC = _story_task("topic", about_the_sea, " about the sea", 32, 1.0)
LENGTH = _story_task("length", of_twenty_words, ", of about twenty words", 48, 1.0)
STYLE = _story_task("style", direct_speech, " in which somebody speaks, in quotation marks", 32, 1.0)
FORMAT = _story_task("format", plain_sentences, ", all of which end in a full stop", 32, 1.0)
