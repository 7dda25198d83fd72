"""What scorers have learned in the course of training, for checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["get_states", "set_states"]


def get_states(scorer: object) -> list[Any]:
    """Return the state of a scorer and of all inside it, outermost first, as JSON can hold it.

    A scorer whose scores move with the texts that it has seen has ``get_state()`` and ``set_state(state)``; for any
    other the entry is None.

    >>> from textgym.scorers import RunningNormalization
    >>> get_states(RunningNormalization("length_band"))
    [{'count': 0, 'mean': 0.0, 'sum_of_squares': 0.0}, None]
    """
    return [one.get_state() if _has_state(one) else None for one in _inside(scorer)]


def set_states(scorer: object, states: Sequence[Mapping[str, Any] | None]) -> None:
    """Take over what :func:`get_states` returned for an equally built scorer.

    Raises:
        ValueError: If the states are those of a differently built one.
    """
    every = list(_inside(scorer))
    if len(every) != len(states) or any(
        (state is not None) != _has_state(one) for one, state in zip(every, states, strict=True)
    ):
        raise ValueError(
            f"the saved states are of another scorer: {len(states)} scorers, this one is made of {len(every)}"
        )
    for one, state in zip(every, states, strict=True):
        if state is not None:
            one.set_state(state)


def _has_state(scorer: Any) -> bool:
    return callable(getattr(scorer, "get_state", None)) and callable(getattr(scorer, "set_state", None))


def _inside(scorer: object) -> Iterator[Any]:
    yield scorer
    for inner in getattr(scorer, "scorers", ()):
        yield from _inside(inner)
