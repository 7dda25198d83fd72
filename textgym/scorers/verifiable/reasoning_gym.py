"""Verifiers of reasoning-gym's data sets."""

from typing import Any

from textgym.batch import TextBatch
from textgym.prompts import Sample
from textgym.scorers.base import EpisodewiseScorer, Scores
from textgym.scorers.evaluation import score_each

__all__ = ["ReasoningGym"]


class ReasoningGym(EpisodewiseScorer):
    """Score that the verifier of a reasoning-gym data set gives the answer.

    Formula: ``dataset.score_answer(answer, entry)``, clipped to [0, 1]. The entry is the sample's metadata, which it is
    if the data set is also the environment's ``prompts``. The answer is the stripped completion, or the part that
    ``marker`` or ``tag`` delimit. Range: [0, 1]; NaN if the sample is not an entry. Empty completion: as the verifier
    scores it; a completion without the marker or tag: as it scores ``None``, 0 for most data sets and 0.01 to 0.05 for
    a few. Deterministic. Not incremental.

    Known exploits: some verifiers give 0.01 to 0.05 to any answer (``power_function``, ``palindrome_generation``,
    ``countdown``). Many give partial credit to an answer that contains the right one, so that a list of all candidates
    scores. ``spell_backward`` compares letters, so "aaaa" scores; ``game_of_life_halting`` accepts any text. Check the
    score of "a" before training.

    An exception of the verifier fails its episode alone; ``prime_factorization`` raises for all but numbers, for which
    ``on_scorer_error=0.0`` is right. Some verifiers evaluate the answer as Python or with SymPy (``string_insertion``,
    ``n_queens``, ``countdown``, ``polynomial_multiplication``), so they may hang or execute the completion.
    ``Checker(scorer.score, time_limit=1)`` runs one in another process with a time limit, which is not a sandbox.

    Source: https://github.com/open-thought/reasoning-gym

    Args:
        dataset: A data set of ``reasoning_gym.create_dataset``, or any object with its method ``score_answer``.
        marker: A text such as ``"####"``: the answer follows its last occurrence.
        tag: Name of a tag such as ``"answer"``: the answer is enclosed by the last ``<answer>...</answer>``.

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
        """Return the scores, and the errors by episode."""
        return score_each(batch, self.score, self.name)

    def score(self, completion: str, sample: Sample) -> float | None:
        """Return the score of one completion, None if the sample is not an entry."""
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
