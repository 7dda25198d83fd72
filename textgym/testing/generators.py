"""Which global random generators a call uses or seeds."""

import pickle
import random
import sys
from collections.abc import Callable

import numpy as np

__all__ = ["disturbed_generators"]


def disturbed_generators(call: Callable[[], object]) -> list[str]:
    """Return the modules whose global generator ``call`` changes; all are left as they were.

    >>> disturbed_generators(lambda: None), disturbed_generators(lambda: random.seed(0))
    ([], ['random'])
    """
    torch = sys.modules.get("torch")
    kept = random.getstate(), np.random.get_state(), None if torch is None else torch.random.get_rng_state()  # noqa: NPY002
    try:
        # A seed shows only where the state is not the one that it sets.
        random.random()
        np.random.random()  # noqa: NPY002
        if torch is not None:
            torch.rand(1)
        before = _states()
        call()
        return [name for name, state in _states().items() if state != before.get(name, state)]
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        if torch is not None:
            torch.random.set_rng_state(kept[2])


def _states() -> dict[str, object]:
    torch = sys.modules.get("torch")
    states: dict[str, object] = {"random": random.getstate(), "numpy": pickle.dumps(np.random.get_state())}  # noqa: NPY002
    return states if torch is None else states | {"torch": torch.random.get_rng_state().tolist()}
