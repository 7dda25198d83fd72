"""Observations: arrays made of the token ids, for N episodes at once."""

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.tokenizers import Tokenizer

__all__ = ["Observation", "TokenDict", "TokenWindow", "as_observation"]


class Observation(Protocol):
    """Observation space of an environment, and the observations of B episodes."""

    def space(self, tokenizer: Tokenizer, window: int, max_new_tokens: int) -> gym.Space[Any]:
        """Return the space of one episode's observation. ``window`` is L, in tokens."""
        ...

    def __call__(self, batch: TextBatch) -> Any:
        """Return fresh arrays with B in front: (B, ...), or a dict of such arrays for a ``Dict`` space."""
        ...


class TokenWindow:
    """Prompt and completion ids, right-padded with V: ``Box(0, V, (L,), int64)``."""

    def space(self, tokenizer: Tokenizer, window: int, max_new_tokens: int) -> gym.Space[Any]:
        """Return ``Box(0, V, (L,), int64)``; V itself is the padding, which no token has."""
        return gym.spaces.Box(0, tokenizer.vocab_size, (window,), np.int64)

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return a (B, L) int64 copy of the ids."""
        return batch.ids.copy()


class TokenDict:
    """The token window with its attention mask, prompt length and step.

    Keys: ``ids`` (L,) int64 as in ``TokenWindow``; ``attention_mask`` (L,) int8, 1 at tokens; ``prompt_length``
    and ``step`` (1,) int64, in tokens, those of a simulated user not counted.
    """

    def space(self, tokenizer: Tokenizer, window: int, max_new_tokens: int) -> gym.Space[Any]:
        """Return the ``Dict`` space of the four keys."""
        return gym.spaces.Dict(
            {
                "ids": TokenWindow().space(tokenizer, window, max_new_tokens),
                "attention_mask": gym.spaces.MultiBinary(window),
                "prompt_length": gym.spaces.Box(0, window, (1,), np.int64),
                "step": gym.spaces.Box(0, max_new_tokens, (1,), np.int64),
            }
        )

    def __call__(self, batch: TextBatch) -> dict[str, npt.NDArray[Any]]:
        """Return the four arrays with B in front."""
        columns = np.arange(batch.ids.shape[1])
        return {
            "ids": batch.ids.copy(),
            "attention_mask": (columns < batch.lengths[:, None]).astype(np.int8),
            "prompt_length": batch.prompt_lengths[:, None].copy(),
            "step": batch.num_actions[:, None],
        }


_BY_NAME: dict[str, type[TokenDict] | type[TokenWindow]] = {"tokens": TokenWindow, "dict": TokenDict}


def as_observation(spec: str | Observation) -> Observation:
    """Return the object that the ``observation`` keyword names: ``"tokens"``, ``"dict"``, or an object as it is.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If the object does not fit the contract.
    """
    if isinstance(spec, str):
        if spec not in _BY_NAME:
            raise unknown_name("observation", spec, _BY_NAME)
        return _BY_NAME[spec]()
    if not callable(spec) or not callable(getattr(spec, "space", None)):
        raise TypeError(f"observation must be a name, or callable and have a method space; got {spec!r}")
    return spec
