"""Which environments a language model can act in, told from their spaces alone, as SB3 shows them to a policy."""

from typing import Any

import numpy as np
from gymnasium import spaces

from textgym_agents.backbone import LMBackbone

__all__ = ["check_actions", "check_window", "window_space"]


def window_space(observation_space: spaces.Space[Any]) -> spaces.Box:
    """Return the space of the token window: the observation, or its entry ``"ids"``.

    Raises:
        TypeError: If there is none.
    """
    space = observation_space.get("ids") if isinstance(observation_space, spaces.Dict) else observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.integer):
        raise TypeError(
            "a language model reads token ids, a space Box(0, V, (L,), int64) or a Dict that holds one under 'ids', "
            f"got {observation_space}; make the environment with observation='tokens'"
        )
    return space


def check_window(observation_space: spaces.Space[Any], backbone: LMBackbone) -> None:
    """Check that a model can read the observations.

    Raises:
        TypeError: If the observation holds no token window.
        ValueError: If its ids are not the model's, or its window is longer than the model's positions.
    """
    space = window_space(observation_space)
    if (highest := int(space.high.max())) != backbone.vocab_size:
        raise ValueError(
            f"the environment has a vocabulary of {highest}, the model one of {backbone.vocab_size}; the environment "
            "needs the model's own tokenizer: give it the same model=..."
        )
    backbone.check_window(space.shape[0])


def check_actions(action_space: spaces.Space[Any], backbone: LMBackbone) -> None:
    """Check that an action is a token of the model.

    Raises:
        TypeError: If actions are not ``Discrete``.
        ValueError: If there are more or fewer of them than tokens.
    """
    if not isinstance(action_space, spaces.Discrete):
        raise TypeError(
            f"a language model writes one token per action, a space Discrete({backbone.vocab_size}), got {action_space}"
        )
    if action_space.n != backbone.vocab_size or action_space.start != 0:
        raise ValueError(
            f"the environment has {action_space.n} actions, the model a vocabulary of {backbone.vocab_size}; a "
            "language model needs actions='vocabulary' and its own tokenizer: give the environment the same model=..."
        )
