"""Contract test of scorers."""

import copy
import json
import pickle
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers import component_names, observe_episodes, score_batch
from textgym.scorers.base import FloatArray
from textgym.scorers.evaluation import get_states, observes, set_states, unscored
from textgym.testing.fixtures import TEXTS, ScorerFixture, ScorerReport
from textgym.testing.incremental import check_incremental
from textgym.testing.known_scorers import preferences_of

__all__ = ["check_scorer"]

TOLERANCE = (1e-4, 1e-5)
"""Relative and absolute tolerance: batched and single network calls differ in the last float32 digits."""
LARGE = 100
"""Size of a large batch: more than the chunk size of most scorers that split batches."""


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
    """Check that a scorer fulfils the contract of ``textgym.scorers.Scorer``.

    For ordinary, unusual and unfinished texts, and for an empty batch, it has to

    * return one finite number or NaN per text, in its range, with the components that it declares,
    * leave the batch unchanged, and neither use nor seed the global random generators,
    * give an episode the same score at every call, in every order and in every batch, if it is deterministic,
    * give the better text of each pair the higher score,
    * be picklable, observe episodes with their scores and with those of a failed call, restore its state from
      JSON and accept ``set_progress``,
    * give the same scores token by token, if it is incremental: under several tokenizers, with characters that are
      split between tokens, and without modifying a state.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        score_range: Least and greatest score; by default the scorer's ``score_range``.
        deterministic: Whether equal episodes have equal scores; by default the scorer's ``deterministic``. ``False``
            skips the comparisons, the check of the global random generators and that of incremental scoring.
        prefers: Pairs of completions (better, worse); by default known pairs for textgym's own scorers, none for
            others.
        prompt: Prompt of every text; by default each has a different one.
        references: References of every text, for a scorer that needs them.
        metadata: Metadata of every text.
        timed: Whether to measure the microseconds per text, alone and in a batch of 64.

    Returns:
        The report; ``print`` shows it as a table.

    Raises:
        AssertionError: If a check fails; the message has a line for each that does, with the text that it fails for.

    >>> from textgym.scorers import LengthBand
    >>> check_scorer(LengthBand())
    <scorer 'length_band': 15 checks passed, scores observed in [0, 1]>
    >>> check_scorer(len, score_range=(0, 100))
    Traceback (most recent call last):
    AssertionError: scorer 'len' leaves its range [0, 100] for the 100,000 characters of words: 100002.0
    """
    fixture = ScorerFixture(scorer, prompt, references, metadata)
    subject = fixture.scorer
    if score_range is None:
        score_range = subject.score_range
    if prefers is None:
        prefers = preferences_of(subject)
    if deterministic is None:
        deterministic = subject.deterministic
    fixture.run("declarations", lambda: _check_declarations(score_range, prefers, deterministic, fixture))
    fixture.run("ordinary and unusual texts", lambda: _check_texts(fixture))
    fixture.run("component names", lambda: _check_names(fixture))
    fixture.run("batch unchanged", lambda: _check_batch_kept(fixture))
    fixture.run("empty batch", lambda: fixture.score(fixture.batch({}), "given a batch of 0 episodes,"))
    fixture.run("unfinished texts", lambda: _check_unfinished(fixture))
    fixture.run("pickling", lambda: _check_pickling(fixture, deterministic))
    if not fixture.failed("pickling"):
        fixture.run("observation, state and progress", lambda: _check_training(fixture))
    if score_range is not None and not fixture.failed("declarations"):
        fixture.run("range", lambda: _check_range(fixture, score_range))
    if prefers and not fixture.failed("declarations"):
        fixture.run("preferences", lambda: _check_prefers(fixture, prefers))
    if deterministic and fixture.scores is not None:
        fixture.run("same score when repeated", lambda: _check_twice(fixture))
        fixture.run("same score in another order", lambda: _check_order(fixture))
        fixture.run("same score alone", lambda: _check_alone(fixture))
        fixture.run("same score in a large batch", lambda: _check_large(fixture))
        fixture.run("global random generators unchanged", lambda: _check_generators_kept(fixture))
    if deterministic and subject.incremental:
        texts = [text for pair in prefers for text in pair][:4] + list(references)[:2]
        fixture.run(
            "same score token by token",
            lambda: check_incremental(subject, texts, prompt, references, dict(metadata or {}), TOLERANCE),
        )
    return fixture.report(timed)


def _check_declarations(score_range: Any, prefers: Any, deterministic: Any, fixture: ScorerFixture) -> str:
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
    declared = [] if score_range is None else [f"range [{score_range[0]}, {score_range[1]}]"]
    declared += [f"{len(prefers)} preferences"] if prefers else []
    declared += ["deterministic" if deterministic else "not deterministic"]
    declared += ["incremental"] if fixture.scorer.incremental else []
    return ", ".join(declared)


def _check_names(fixture: ScorerFixture) -> str:
    subject = fixture.scorer
    names = component_names(subject)
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            raise AssertionError(f"has the name {name!r}, expected a non-empty string without '/'")
    scores = score_batch(subject, fixture.batch({"plain English": TEXTS["plain English"]}))
    if scores.error is None and set(scores.components) != set(subject.components):
        raise AssertionError(
            f"reports the components {', '.join(scores.components) or 'none'}, but declares "
            f"{', '.join(subject.components) or 'none'}"
        )
    return ", ".join(names)


def _check_texts(fixture: ScorerFixture) -> str:
    scores = fixture.score(fixture.batch(TEXTS), names=list(TEXTS))
    fixture.scores = scores
    applies = scores[~np.isnan(scores)]
    if len(applies) == 0:
        return f"{len(TEXTS)} texts, applies to none of them"
    num_nan = len(TEXTS) - len(applies)
    also = f", does not apply to {num_nan}" if num_nan else ""
    return f"{len(TEXTS)} texts, scores from {applies.min():.4g} to {applies.max():.4g}{also}"


def _check_batch_kept(fixture: ScorerFixture) -> None:
    for batch, what in (
        (fixture.batch(TEXTS), "the batch"),
        (_unfinished(fixture)[0], "the batch of unfinished texts"),
    ):
        before, states = _contents(batch), get_states(fixture.scorer)
        score_batch(fixture.scorer, batch)
        if get_states(fixture.scorer) != states:
            raise AssertionError("changes its state when it scores; it may do so in observe only")
        if _contents(batch) != before:
            raise AssertionError(f"modifies {what} that it scores")


def _contents(batch: TextBatch) -> tuple[Any, ...]:
    arrays = (batch.ids, batch.lengths, batch.prompt_lengths, batch.done)
    texts = (batch.prompts, batch.completions, batch.completion_ids, batch.references, batch.metadata)
    return (*(array.tobytes() for array in arrays), *copy.deepcopy(texts))


def _unfinished(fixture: ScorerFixture) -> tuple[TextBatch, list[str]]:
    """Return unfinished episodes and their names."""
    words = TEXTS["plain English"].split(" ")
    texts = {f"first {i} words": " ".join(words[:i]) for i in range(len(words))}
    batch = fixture.batch(texts)
    batch.done[:] = False
    return batch, list(texts)


def _check_unfinished(fixture: ScorerFixture) -> None:
    batch, names = _unfinished(fixture)
    fixture.score(batch, "given unfinished texts,", names)


def _check_pickling(fixture: ScorerFixture, deterministic: bool) -> None:
    try:
        copied = pickle.loads(pickle.dumps(fixture.scorer))
    except Exception as error:  # a reducer is user code and may raise anything
        local = any(mark in str(error) for mark in ("<lambda>", "<locals>"))
        hint = "; instead of a lambda or an inner function, use a function of a module" if local else ""
        raise AssertionError(f"cannot be pickled: {error}{hint}") from error
    scores = (
        fixture.score(fixture.batch(TEXTS), "pickled and loaded,", list(TEXTS), copied)
        if fixture.scores is not None
        else None
    )
    if deterministic and scores is not None:
        _check_same(fixture, scores, "does not survive pickling: its copy")


def _check_training(fixture: ScorerFixture) -> str:
    """Check ``observe``, state and ``set_progress`` on copies of the scorer."""
    copied, restored = (pickle.loads(pickle.dumps(fixture.scorer)) for _ in range(2))
    texts = {name: text for name, text in TEXTS.items() if len(text) < 1_000}
    batch = fixture.batch(texts)
    if observes(copied):
        scores = score_batch(copied, batch)
        if len(scores.inner) not in (0, len(copied.scorers)):
            raise AssertionError(f"reports scores of {len(scores.inner)} of its {len(copied.scorers)} inner scorers")
        for what, found in (("its scores", scores), ("the scores of a failed call", unscored(copied, len(batch)))):
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
        raise AssertionError("has another state after set_state than the one passed to it")
    restored.set_progress(0.5)
    fixture.score(batch, "after set_progress(0.5),", list(texts), restored)
    learned = "observes" if observes(copied) else "does not observe"
    return f"{learned}, {sum(state is not None for state in states)} states"


def _check_range(fixture: ScorerFixture, limits: tuple[float, float]) -> str:
    low, high = limits
    for name, score in zip(TEXTS, [] if fixture.scores is None else fixture.scores.tolist(), strict=False):
        if score < low or score > high:
            raise AssertionError(f"leaves its range [{low}, {high}] for the {name}: {score}")
    for score in fixture.seen:
        if score < low or score > high:
            raise AssertionError(f"leaves its range [{low}, {high}]: {score}")
    return f"[{low}, {high}]"


def _check_prefers(fixture: ScorerFixture, prefers: Sequence[tuple[str, str]]) -> str:
    texts = {
        f"{side} text {text!r}": text for pair in prefers for side, text in zip(("better", "worse"), pair, strict=True)
    }
    prompt = "" if fixture.prompt is None else fixture.prompt
    scores = dict(zip(texts, fixture.score(fixture.batch(texts, prompt), names=list(texts)).tolist(), strict=True))
    for better, worse in prefers:
        first, second = scores[f"better text {better!r}"], scores[f"worse text {worse!r}"]
        if not first > second:
            raise AssertionError(f"does not prefer {better!r} ({first:.6g}) to {worse!r} ({second:.6g})")
    return f"{len(prefers)} pairs"


def _check_same(fixture: ScorerFixture, got: FloatArray, what: str) -> None:
    assert fixture.scores is not None
    for name, first, second in zip(TEXTS, fixture.scores.tolist(), got.tolist(), strict=True):
        if not np.isclose(second, first, *TOLERANCE, equal_nan=True):
            raise AssertionError(f"{what} gives the {name} {second} instead of {first}")


def _check_twice(fixture: ScorerFixture) -> None:
    batch = fixture.batch(TEXTS)
    fixture.score(batch, names=list(TEXTS))
    _check_same(fixture, fixture.score(batch, names=list(TEXTS)), "is not deterministic: called again, it")


def _check_order(fixture: ScorerFixture) -> None:
    order = np.arange(len(TEXTS))[::-1]
    names = list(reversed(TEXTS))
    reordered = fixture.score(fixture.batch(TEXTS).select(order), "given the texts in another order,", names)
    _check_same(fixture, reordered[order], "depends on the order of the batch: reversed, it")


def _check_alone(fixture: ScorerFixture) -> None:
    batch = fixture.batch(TEXTS)
    alone = [fixture.score(batch.select(np.array([i])), "given one text,")[0] for i in range(len(TEXTS))]
    _check_same(fixture, np.array(alone), "depends on the rest of the batch: alone, it")


def _check_large(fixture: ScorerFixture) -> str:
    assert fixture.scores is not None
    short = np.flatnonzero([len(text) < 1_000 for text in TEXTS.values()])
    index = np.resize(short, LARGE)
    scores = fixture.score(fixture.batch(TEXTS).select(index), f"given a batch of {LARGE},")
    found = fixture.scores.copy()
    for start in range(0, LARGE, len(short)):
        part = index[start : start + len(short)]
        found[part] = scores[start : start + len(short)]
        _check_same(fixture, found, f"depends on the rest of the batch: in one of {LARGE}, it")
    return f"{LARGE} texts"


def _check_generators_kept(fixture: ScorerFixture) -> None:
    batch = fixture.batch(TEXTS)
    disturbed = _disturbed_generators(lambda: score_batch(fixture.scorer, batch))
    if disturbed:
        raise AssertionError(f"uses or seeds the global random generator of {', '.join(disturbed)}; use one of its own")


def _disturbed_generators(call: Callable[[], object]) -> list[str]:
    """Return the modules whose global random generator ``call`` changes; all are restored.

    >>> _disturbed_generators(lambda: None), _disturbed_generators(lambda: random.seed(0))
    ([], ['random'])
    """
    torch = sys.modules.get("torch")
    kept = random.getstate(), np.random.get_state(), None if torch is None else torch.random.get_rng_state()  # noqa: NPY002
    try:
        # Advance first, so that a call that sets the current seed again is detected.
        random.random()
        np.random.random()  # noqa: NPY002
        if torch is not None:
            torch.rand(1)
        before = _generator_states()
        call()
        return [name for name, state in _generator_states().items() if state != before.get(name, state)]
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        if torch is not None:
            torch.random.set_rng_state(kept[2])


def _generator_states() -> dict[str, object]:
    torch = sys.modules.get("torch")
    states: dict[str, object] = {"random": random.getstate(), "numpy": pickle.dumps(np.random.get_state())}  # noqa: NPY002
    return states if torch is None else states | {"torch": torch.random.get_rng_state().tolist()}
