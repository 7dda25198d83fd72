"""The contract of scorers as a function: what one has to pass before it earns rewards."""

import copy
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import component_names, observe_episodes, score_part
from textgym.scorers.base import get_states, observes, set_states
from textgym.scorers.evaluation import unscored
from textgym.testing.generators import disturbed_generators
from textgym.testing.growing import check_growing
from textgym.testing.kit import TEXTS, ScorerKit
from textgym.testing.known_scorers import preferences_of
from textgym.testing.report import Check, ScorerReport

__all__ = ["Check", "ScorerReport", "check_scorer"]

TOLERANCE = (1e-4, 1e-5)
"""Relative and absolute. Batched and single calls of a network differ in the last float32 digits."""
LARGE = 100
"""Episodes of a large batch: more than a scorer that splits batches is likely to take at once."""

FloatArray = npt.NDArray[np.float64]


def check_scorer(
    scorer: Any,
    *,
    score_range: tuple[float, float] | None = None,
    deterministic: bool | None = None,
    prefers: Sequence[tuple[str, str]] | None = None,
    prompt: str | None = None,
    references: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    timed: bool = False,
) -> ScorerReport:
    """Check that a scorer keeps the contract of :class:`textgym.scorers.Scorer`.

    It has to give one finite number or NaN for each of some ordinary and some nasty texts, for unfinished ones and for
    a batch of none, stay in its range, leave the batch as it was, survive pickling, observe episodes whether or not it
    scored them, restore its state from JSON, score after ``set_progress``, score the better text of each pair higher,
    agree with itself about the names of its parts, give an episode the same score whenever and in whatever company it
    is asked, and neither use nor seed the global random generators. An incremental one has to say the same
    of texts that grow token by token under several tokenizers, cut characters among them, without changing an old
    state.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        score_range: The least and the greatest score; by default the scorer's attribute ``score_range``, if it has one.
        deterministic: Whether equal episodes have equal scores; by default the scorer's attribute ``deterministic``,
            else ``True``. ``False`` leaves out the comparisons.
        prefers: Pairs of completions, the better one first; by default known pairs for textgym's own scorers, none for
            others. An empty list leaves the pairs out.
        prompt: The prompt of every text; by default each has another.
        references: References that every text is given, for a scorer that needs them.
        metadata: Metadata that every text is given.
        timed: Whether to measure the microseconds that a text costs, alone and in a batch of 64.

    Returns:
        What was checked and seen. A bare call at the prompt shows one line, ``print`` the table.

    Raises:
        AssertionError: If a check fails; the message has a line for each that does, which says for which text.

    >>> from textgym.scorers import LengthBand
    >>> check_scorer(LengthBand())
    <scorer 'length_band': 15 checks passed, scores seen in [0, 1]>
    >>> check_scorer(len, score_range=(0, 100))
    Traceback (most recent call last):
    AssertionError: scorer 'len' leaves its range [0, 100] for the 100,000 characters of words: 100002.0
    """
    kit = ScorerKit(scorer, prompt, references, metadata)
    subject = kit.subject
    if score_range is None:
        score_range = subject.score_range
    if prefers is None:
        prefers = preferences_of(subject)
    if deterministic is None:
        deterministic = subject.deterministic
    kit.run("what it says of itself", lambda: _check_claims(score_range, prefers, deterministic, kit))
    kit.run("ordinary and nasty texts", lambda: _check_texts(kit))
    kit.run("names of the parts", lambda: _check_names(kit))
    kit.run("the batch stays as it was", lambda: _check_batch_kept(kit))
    kit.run("a batch of none", lambda: kit.score(kit.batch({}), "given a batch of 0 episodes,"))
    kit.run("unfinished texts", lambda: _check_unfinished(kit))
    kit.run("survives pickling", lambda: _check_pickling(kit, deterministic))
    if not kit.failed("survives pickling"):
        kit.run("observation, state and progress", lambda: _check_training(kit))
    if score_range is not None and not kit.failed("what it says of itself"):
        kit.run("stays in its range", lambda: _check_range(kit, score_range))
    if prefers and not kit.failed("what it says of itself"):
        kit.run("prefers the better text", lambda: _check_prefers(kit, prefers))
    if deterministic and kit.scores is not None:
        kit.run("the same when asked twice", lambda: _check_twice(kit))
        kit.run("the same in any order", lambda: _check_order(kit))
        kit.run("the same alone", lambda: _check_alone(kit))
        kit.run("the same in a large batch", lambda: _check_large(kit))
        kit.run("random generators stay as they were", lambda: _check_generators_kept(kit))
    if deterministic and subject.incremental:
        texts = [text for pair in prefers for text in pair][:4] + list(references)[:2]
        kit.run(
            "the same token by token",
            lambda: check_growing(subject, texts, prompt, references, dict(metadata or {}), TOLERANCE),
        )
    return kit.report(timed)


def _check_claims(score_range: Any, prefers: Any, deterministic: Any, kit: ScorerKit) -> str:
    if score_range is not None:
        pair = tuple(score_range) if isinstance(score_range, tuple | list) else ()
        if len(pair) != 2 or not pair[0] <= pair[1]:
            raise AssertionError(f"has the score_range {score_range!r}, expected (least, greatest)")
    if not isinstance(prefers, tuple | list) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in prefers
    ):
        raise AssertionError(f"has {prefers!r} as prefers, expected pairs of texts (better, worse)")
    if not isinstance(deterministic, bool):
        raise AssertionError(f"has {deterministic!r} as deterministic, expected True or False")
    claims = [] if score_range is None else [f"range [{score_range[0]}, {score_range[1]}]"]
    claims += [f"{len(prefers)} preferences"] if prefers else []
    claims += ["deterministic" if deterministic else "not deterministic"]
    claims += ["incremental"] if kit.subject.incremental else []
    return ", ".join(claims)


def _check_names(kit: ScorerKit) -> str:
    subject = kit.subject
    names = component_names(subject)
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            raise AssertionError(f"has the name {name!r}, expected a non-empty string without '/'")
    scores = score_part(subject, kit.batch({"plain English": TEXTS["plain English"]}))
    if scores.error is None and set(scores.components) != set(subject.components):
        raise AssertionError(
            f"reports the components {', '.join(scores.components) or 'none'}, but declares "
            f"{', '.join(subject.components) or 'none'}"
        )
    return ", ".join(names)


def _check_texts(kit: ScorerKit) -> str:
    scores = kit.score(kit.batch(TEXTS), names=list(TEXTS))
    kit.scores = scores
    applies = scores[~np.isnan(scores)]
    if len(applies) == 0:
        return f"{len(TEXTS)} texts, applies to none of them"
    silent = len(TEXTS) - len(applies)
    also = f", does not apply to {silent}" if silent else ""
    return f"{len(TEXTS)} texts, scores from {applies.min():.4g} to {applies.max():.4g}{also}"


def _check_batch_kept(kit: ScorerKit) -> None:
    for batch, what in ((kit.batch(TEXTS), "the batch"), (_unfinished(kit)[0], "the batch of unfinished texts")):
        before, states = _contents(batch), get_states(kit.subject)
        score_part(kit.subject, batch)
        if get_states(kit.subject) != states:
            raise AssertionError("learns from texts that it scores; it should learn in observe")
        if _contents(batch) != before:
            raise AssertionError(f"modifies {what} that it scores")


def _contents(batch: TextBatch) -> tuple[Any, ...]:
    arrays = (batch.ids, batch.lengths, batch.prompt_lengths, batch.done)
    texts = (batch.prompts, batch.completions, batch.completion_ids, batch.references, batch.metadata)
    return (*(array.tobytes() for array in arrays), *copy.deepcopy(texts))


def _unfinished(kit: ScorerKit) -> tuple[TextBatch, list[str]]:
    """Return new episodes that have not ended, and what they are called."""
    words = TEXTS["plain English"].split(" ")
    texts = {f"first {i} words": " ".join(words[:i]) for i in range(len(words))}
    batch = kit.batch(texts)
    batch.done[:] = False
    return batch, list(texts)


def _check_unfinished(kit: ScorerKit) -> None:
    batch, names = _unfinished(kit)
    kit.score(batch, "given unfinished texts,", names)


def _check_pickling(kit: ScorerKit, deterministic: bool) -> None:
    try:
        copied = pickle.loads(pickle.dumps(kit.subject))
    except Exception as error:  # a reducer is user code and may raise anything
        local = any(mark in str(error) for mark in ("<lambda>", "<locals>"))
        hint = "; instead of a lambda or an inner function, use a function of a module" if local else ""
        raise AssertionError(f"cannot be pickled: {error}{hint}") from error
    scores = kit.score(kit.batch(TEXTS), "pickled and loaded,", list(TEXTS), copied) if kit.scores is not None else None
    if deterministic and scores is not None:
        _check_same(kit, scores, "does not survive pickling: its copy")


def _check_training(kit: ScorerKit) -> str:
    """Observe, save, restore and move on, with copies: the scorer stays as it is."""
    copied, restored = (pickle.loads(pickle.dumps(kit.subject)) for _ in range(2))
    texts = {name: text for name, text in TEXTS.items() if len(text) < 1_000}
    batch = kit.batch(texts)
    if observes(copied):
        scores = score_part(copied, batch)
        if len(scores.inner) not in (0, len(copied.scorers)):
            raise AssertionError(f"reports scores of {len(scores.inner)} of its {len(copied.scorers)} inner scorers")
        for what, found in (("its scores", scores), ("the scores of a call that failed", unscored(copied, len(batch)))):
            try:
                observe_episodes(copied, batch, found)
            except Exception as error:
                raise AssertionError(f"fails to observe {what}: {type(error).__name__}: {error}") from error
    states = get_states(copied)
    try:
        saved = json.dumps(states)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"has a state that JSON cannot hold: {error}") from error
    set_states(restored, json.loads(saved))
    if json.dumps(get_states(restored)) != saved:
        raise AssertionError("has another state after set_state than the one that it was given")
    restored.set_progress(0.5)
    kit.score(batch, "after set_progress(0.5),", list(texts), restored)
    learned = "observes" if observes(copied) else "does not observe"
    return f"{learned}, {sum(state is not None for state in states)} states"


def _check_range(kit: ScorerKit, limits: tuple[float, float]) -> str:
    low, high = limits
    for name, score in zip(TEXTS, [] if kit.scores is None else kit.scores.tolist(), strict=False):
        if score < low or score > high:
            raise AssertionError(f"leaves its range [{low}, {high}] for the {name}: {score}")
    for score in kit.seen:
        if score < low or score > high:
            raise AssertionError(f"leaves its range [{low}, {high}]: {score}")
    return f"[{low}, {high}]"


def _check_prefers(kit: ScorerKit, prefers: Sequence[tuple[str, str]]) -> str:
    texts = {
        f"{side} text {text!r}": text for pair in prefers for side, text in zip(("better", "worse"), pair, strict=True)
    }
    prompt = "" if kit.prompt is None else kit.prompt
    scores = dict(zip(texts, kit.score(kit.batch(texts, prompt), names=list(texts)).tolist(), strict=True))
    for better, worse in prefers:
        first, second = scores[f"better text {better!r}"], scores[f"worse text {worse!r}"]
        if not first > second:
            raise AssertionError(f"does not prefer {better!r} ({first:.6g}) to {worse!r} ({second:.6g})")
    return f"{len(prefers)} pairs"


def _check_same(kit: ScorerKit, got: FloatArray, what: str) -> None:
    assert kit.scores is not None
    for name, first, second in zip(TEXTS, kit.scores.tolist(), got.tolist(), strict=True):
        if not np.isclose(second, first, *TOLERANCE, equal_nan=True):
            raise AssertionError(f"{what} gives the {name} {second} instead of {first}")


def _check_twice(kit: ScorerKit) -> None:
    batch = kit.batch(TEXTS)
    kit.score(batch, names=list(TEXTS))
    _check_same(kit, kit.score(batch, names=list(TEXTS)), "is not deterministic: asked twice,")


def _check_order(kit: ScorerKit) -> None:
    order = np.arange(len(TEXTS))[::-1]
    names = list(reversed(TEXTS))
    reordered = kit.score(kit.batch(TEXTS).select(order), "given the texts in another order,", names)
    _check_same(kit, reordered[order], "depends on the order of the batch: reversed, it")


def _check_alone(kit: ScorerKit) -> None:
    batch = kit.batch(TEXTS)
    alone = [kit.score(batch.select(np.array([i])), "given one text,")[0] for i in range(len(TEXTS))]
    _check_same(kit, np.array(alone), "depends on the rest of the batch: alone, it")


def _check_large(kit: ScorerKit) -> str:
    assert kit.scores is not None
    short = np.flatnonzero([len(text) < 1_000 for text in TEXTS.values()])
    index = np.resize(short, LARGE)
    scores = kit.score(kit.batch(TEXTS).select(index), f"given a batch of {LARGE},")
    found = kit.scores.copy()
    for start in range(0, LARGE, len(short)):
        part = index[start : start + len(short)]
        found[part] = scores[start : start + len(short)]
        _check_same(kit, found, f"depends on the rest of the batch: in one of {LARGE}, it")
    return f"{LARGE} texts"


def _check_generators_kept(kit: ScorerKit) -> None:
    batch = kit.batch(TEXTS)
    disturbed = disturbed_generators(lambda: score_part(kit.subject, batch))
    if disturbed:
        raise AssertionError(
            f"uses or seeds the global random generator of {', '.join(disturbed)}; keep one of your own"
        )
