"""Whether a text solves a task of reasoning-gym."""

from typing import Any

from textgym.batch import TextBatch
from textgym.prompts import Sample
from textgym.scorers.base import EpisodewiseScorer, Scores
from textgym.scorers.evaluation import score_each

__all__ = ["ReasoningGym"]


class ReasoningGym(EpisodewiseScorer):
    """What the verifier of a data set of reasoning-gym says of the answer.

    Formula: ``dataset.score_answer(answer, entry)``, the entry being the sample's metadata, as it is when the data set
    is also the environment's ``prompts``. The answer is the completion without blanks around it; or what ``marker`` or
    ``tag`` delimit in it. Range: [0, 1]; NaN where the sample is no entry of such a data set. An empty completion
    scores what the verifier says of it, one without the marker or the tag what it says of ``None``: 0, but for a few
    data sets, in which it is 0.01 to 0.05. Deterministic. Not incremental.

    Hackable: some verifiers pay 0.01 to 0.05 for any answer, right or wrong (such as those of ``power_function``,
    ``palindrome_generation`` and ``countdown``). Many pay for an answer that has more in it than the right one by the
    right one's share of its length, so that a list of all candidates earns something. That of ``spell_backward``
    compares letters, so that "aaaa" pays; that of ``game_of_life_halting`` takes any text for right. Look at
    what a data set's verifier says of "a" before training on it.

    A text for which the verifier raises fails alone; that of ``prime_factorization`` raises for all but numbers, and
    ``on_scorer_error=0.0`` makes them worth 0. Some verifiers evaluate the answer as Python or with SymPy (such as
    those of ``string_insertion``, ``n_queens``, ``countdown`` and ``polynomial_multiplication``), and so may hang, or
    do what the completion says. ``Checker(scorer.score, time_limit=1)`` runs one in a process of its own, which ends
    what hangs, but is no sandbox.

    Source: https://github.com/open-thought/reasoning-gym

    Args:
        dataset: What ``reasoning_gym.create_dataset`` returns; anything with its method ``score_answer``.
        marker: A text such as ``"####"``, after whose last occurrence the answer stands.
        tag: The name of a tag such as ``"answer"``: what the last ``<answer>...</answer>`` encloses is the answer.

    Raises:
        TypeError: If the data set has no method ``score_answer``.
        ValueError: If the marker or the tag is blank, or both are given.

    >>> class Doubling:
    ...     def score_answer(self, answer, entry):
    ...         return float(answer == entry["answer"])
    >>> entry = {"question": "2 * 4 =", "answer": "8", "metadata": {}}
    >>> texts = ["So it is #### 8", "8", ""]
    >>> ReasoningGym(Doubling(), marker="####")(TextBatch.from_texts(texts, metadata=[entry] * 3))
    array([1., 0., 0.])
    """

    score_range = (0.0, 1.0)

    def __init__(self, dataset: Any, marker: str | None = None, tag: str | None = None) -> None:
        if not callable(getattr(dataset, "score_answer", None)):
            raise TypeError(f"dataset is {dataset!r:.60} of type {type(dataset).__name__}, which has no score_answer()")
        for name, value in (("marker", marker), ("tag", tag)):
            if value is not None and not value.strip():
                raise ValueError(f"{name} is blank: {value!r}; None takes the whole completion")
        if marker is not None and tag is not None:
            raise ValueError(f"give a marker or a tag, not both: {marker!r}, {tag!r}")
        self.dataset = dataset
        self.marker = marker
        self.tag = tag

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the scores, and which episodes failed."""
        return score_each(batch, self.score, self.name)

    def score(self, completion: str, sample: Sample) -> float | None:
        """Return what one completion is worth, ``None`` where the sample is no entry."""
        entry = sample.metadata
        if "question" not in entry or "answer" not in entry:
            return None
        return min(max(float(self.dataset.score_answer(self._answer(completion), dict(entry))), 0.0), 1.0)

    def _answer(self, completion: str) -> str | None:
        if self.marker is not None:
            _, found, answer = completion.rpartition(self.marker)
        elif self.tag is not None:
            before, found, _ = completion.rpartition(f"</{self.tag}>")
            _, opened, answer = before.rpartition(f"<{self.tag}>")
            found = found and opened
        else:
            return completion.strip()
        return answer.strip() if found else None
