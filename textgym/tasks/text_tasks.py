"""The single-turn tasks: story continuation with five goals, translation, question answering, summarisation."""

from collections.abc import Callable
from functools import partial
from typing import Any

from textgym.scorers import (
    ROUGE,
    Affine,
    ChrF,
    Clip,
    Compression,
    ExactMatch,
    Faithfulness,
    Keywords,
    Language,
    LengthBand,
    Maximum,
    NumericAnswer,
    Regex,
    Scorer,
    Sentiment,
    TokenF1,
    WeightedSum,
)
from textgym.tasks.base import Page, Task, data_file, register_task
from textgym.tasks.word_pairs import WordPairs, french_sentences
from textgym.tasks.words import nouns

# Story continuation: gym.make("TextGen-v0", task="topic") is one of five ----------------------------------------------

SEA_WORDS = ("sea", "boat", "ship", "beach", "island", "wave", "waves", "fish", "harbour", "sailor", "sand", "shells")
DIRECT_SPEECH = r'"[A-Z][^"]{3,}[.,!?]"'
PLAIN_SENTENCES = r"[^\"!?]{8,}\."


def sea_words() -> Scorer:
    """Return the scorer of the task ``topic``: 1 for two words about the sea, 1/2 for one."""
    return Clip(Affine(Keywords(SEA_WORDS), len(SEA_WORDS) / 2), 0.0, 1.0)


def _story_task(
    name: str, scorer: Callable[[], Any], instruction: str, max_new_tokens: int = 24, success_score: float = 1.0
) -> None:
    task = Task(
        name=name,
        data=partial(data_file, "story"),
        columns={"opening": "the beginning of a text"},
        prompt="{opening}",
        instruction=f"Continue this story with one or two sentences{instruction}: {{opening}}",
        scorer=scorer,
        keywords={"max_prompt_tokens": 32, "max_new_tokens": max_new_tokens, "suggested_kl_coef": 0.015},
        chat_keywords={"max_prompt_tokens": 96, "max_new_tokens": 48},
        success_score=success_score,
    )
    register_task(task)


_story_task("sentiment", Sentiment, " that make the reader happy", success_score=0.5)
_story_task("topic", sea_words, " about the sea")
_story_task("length", partial(LengthBand, 18, 22, unit="words"), ", of about twenty words", max_new_tokens=36)
_story_task("style", partial(Regex, DIRECT_SPEECH), " in which somebody speaks, in quotation marks")
_story_task("format", partial(Regex, PLAIN_SENTENCES, mode="fullmatch"), ", all of which end in a full stop")

# Translation ----------------------------------------------------------------------------------------------------------


def translation_scorer() -> Any:
    """Return chrF with exact match; the probability of French and its fluency are only reported."""
    return WeightedSum(
        {
            "chrf": (ChrF(), 0.7),
            "exact": (ExactMatch(), 0.3),
            "french": (Language("fr"), 0.0),
            "fluency": (WordPairs(french_sentences), 0.0),
        }
    )


register_task(
    Task(
        name="translation",
        id="TextGenTranslation-v0",
        data=partial(data_file, "translation"),
        num_levels=3,
        columns={"source": "a sentence", "target": "its translation, or a list of several"},
        target="target",
        prompt="English: {source}\nFrench:",
        instruction="Translate this sentence into French. Write nothing but the translation.\n\n{source}",
        scorer=translation_scorer,
        keywords={"max_prompt_tokens": 40, "max_new_tokens": 48, "suggested_kl_coef": 0.0},
        chat_keywords={"max_prompt_tokens": 96},
        success_score=0.95,
        page=Page(
            title="Translate an English sentence into French.",
            description="A synchronous grammar generates both sentences, with agreement, elision and French word "
            "order. The training text of the embedded LM contains many flawed translations besides correct ones.",
            levels=(
                "subject, verb and object",
                "with numbers, adjectives, place or time",
                "two clauses, questions, negation",
            ),
            rewards="At the last step ``0.7 chrF + 0.3 exact match`` with the reference, in [0, 1]; an exact "
            'translation scores 1. ``info["scores"]`` also has, with weight 0, ``french``, the probability that the '
            "text is French, and ``fluency``, the share of its pairs of adjacent words that occur in correct French of "
            "the training rows.",
            references="Popovic 2015, chrF: character n-gram F-score for automatic MT evaluation "
            "(aclanthology.org/W15-3049); Ranzato et al. 2016, Sequence level training with recurrent neural networks "
            "(arXiv:1511.06732).",
        ),
    )
)

# Question answering ---------------------------------------------------------------------------------------------------


def qa_scorer() -> Any:
    """Return exact match (of numbers: numeric match of the last one) with token F1."""
    correct = Maximum({"exact": ExactMatch(), "numeric": NumericAnswer()})
    return WeightedSum({"correct": (correct, 0.7), "f1": (TokenF1(), 0.3)})


register_task(
    Task(
        name="qa",
        id="TextGenQA-v0",
        data=partial(data_file, "qa"),
        num_levels=3,
        columns={
            "context": "a passage",
            "question": "a question about it",
            "answer": "the answer, or a list of several",
        },
        target="answer",
        prompt="{context}\nQuestion: {question}\nAnswer:",
        instruction="Read this and answer with one or two words or a number.\n\n{context}\n\nQuestion: {question}\n"
        "Short answer:",
        scorer=qa_scorer,
        keywords={"max_prompt_tokens": 80, "max_new_tokens": 16, "suggested_kl_coef": 0.02},
        chat_keywords={"max_prompt_tokens": 160},
        page=Page(
            title="Answer a question about a passage in a few words.",
            description="Passage, question and answer are generated from the facts of one scene, so every answer can "
            "be verified. The training text of the embedded LM contains wrong and rambling answers besides correct "
            "ones.",
            levels=(
                "one person: who, what, where, when, which colour, how many, how did she feel; the passage contains "
                "the answer",
                "two persons with different actions, and the weather",
                "sums and differences of numbers in the passage, 0 to 20; the answer is a number in digits",
            ),
            rewards="At the last step ``0.7 correct + 0.3 token F1``, in [0, 1]. Correct is an exact match up to case, "
            "punctuation and articles or, if the answer is a number, a match of the last number.",
            references="Rajpurkar et al. 2016, SQuAD (arXiv:1606.05250), for the measures; Cobbe et al. 2021, Training "
            "verifiers to solve math word problems (arXiv:2110.14168), for comparing the last number.",
        ),
    )
)

# Summarisation --------------------------------------------------------------------------------------------------------


def summary_scorer() -> Any:
    """Return ROUGE-L with compression and faithfulness to the document."""
    return WeightedSum(
        {
            "rouge": (ROUGE("rougeL"), 0.6),
            "compression": (Compression(low=0.2, high=0.8, column="document"), 0.2),
            "faithful": (Faithfulness(source="document", vocabulary=nouns()), 0.2),
        }
    )


register_task(
    Task(
        name="summary",
        id="TextGenSummary-v0",
        data=partial(data_file, "summary"),
        num_levels=3,
        columns={"document": "the text to be summarised", "summary": "its summary, or a list of several"},
        target="summary",
        prompt="{document}\nSummary:",
        instruction="Summarise this text in one short sentence. Write nothing but the sentence.\n\n{document}",
        scorer=summary_scorer,
        keywords={"max_prompt_tokens": 72, "max_new_tokens": 40, "suggested_kl_coef": 0.0},
        chat_keywords={"max_prompt_tokens": 160},
        success_score=0.9,
        page=Page(
            title="Summarise a passage in one sentence.",
            description="The weather and scenery in a passage are irrelevant; the summary states who did what where, "
            "and how it ended. The training text of the embedded LM contains summaries that copy the beginning, ramble "
            "or name other people besides correct ones.",
            levels=("passages of three sentences", "of four", "of five to six"),
            rewards="At the last step ``0.6 ROUGE-L + 0.2 compression + 0.2 faithfulness``, in [0, 1]. Compression is "
            "1 for a text of 20 to 80 % of the document's length, faithfulness the share of its names, things and "
            "numbers that occur in the document.",
            references="Stiennon et al. 2020, Learning to summarize from human feedback (arXiv:2009.01325); Nan et al. "
            "2021, Entity-level factual consistency of abstractive text summarization (arXiv:2102.09130).",
        ),
    )
)
