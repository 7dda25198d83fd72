"""What an environment remembers of its steps in order to render them, and its render modes."""

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.envs.core import Core
from textgym.envs.step_result import Step
from textgym.rendering import LiveLine, RenderState
from textgym.tokenizers.base import TokenPieces

__all__ = ["Rendering"]


class Rendering:
    """Rewards and log-probabilities of the tokens of N episodes, and the outcomes of the last episodes.

    Those of earlier steps are unknown: of the episodes that run already, the text is shown without them.

    Args:
        core: The episodes.
    """

    def __init__(self, core: Core) -> None:
        n, length = core.ids.shape
        self._rewards = np.full((n, length), math.nan)
        self._log_probs = np.full((n, length), math.nan)
        self._returns = np.where(core.steps == 0, 0.0, math.nan)
        self._outcomes: list[tuple[float, str] | None] = [None] * n  # score and end reason of the last ended episode
        self._line: LiveLine | None = LiveLine()
        score_range = getattr(core.components.scorer, "score_range", None)
        low, high = (-1.0, 1.0) if score_range is None else score_range
        is_bounded = math.isfinite(low) and math.isfinite(high) and low < high
        self._range = (float(low), float(high)) if is_bounded else (-1.0, 1.0)
        self._is_bounded = is_bounded

    def start(self, slots: npt.NDArray[np.int64]) -> None:
        """Forget the episodes of ``slots``, since new ones have started there."""
        self._rewards[slots], self._log_probs[slots], self._returns[slots] = math.nan, math.nan, 0.0

    def forget(self) -> None:
        """Forget all episodes, which have been replaced by those of a snapshot."""
        self._rewards[:], self._log_probs[:], self._returns[:] = math.nan, math.nan, math.nan
        self._outcomes = [None] * len(self._outcomes)

    def record(self, core: Core, lengths: npt.NDArray[np.int64], log_probs: Any, step: Step) -> None:
        """Record a step.

        Args:
            core: After the step.
            lengths: (N,) tokens of prompt and completion before it.
            log_probs: (N,) log-probabilities of the actions, or None.
            step: Its result.
        """
        played = np.ones(core.num_envs, dtype=np.bool_) if step.played is None else step.played
        slots = np.flatnonzero(played)
        places = np.minimum(lengths[slots], self._rewards.shape[1] - 1)  # an ignored action writes no token
        self._rewards[slots, places] = step.rewards[slots]
        if log_probs is not None:
            self._log_probs[slots, places] = log_probs[slots]
        self._returns[slots] += step.rewards[slots]
        if not self._is_bounded:
            largest = float(np.nanmax(np.abs(self._returns), initial=self._range[1]))
            self._range = (-largest, largest)
        if step.episode_end is not None:
            ends = zip(step.episode_end.scores.total.tolist(), step.episode_end.end_reasons, strict=True)
            for slot, outcome in zip(step.episode_end.slots.tolist(), ends, strict=True):
                self._outcomes[slot] = outcome
            if step.final is not None:
                self.start(step.episode_end.slots)
        self.start(np.flatnonzero(~played & core.running))

    def state(self, core: Core, slot: int) -> RenderState:
        """Return what is shown of the episode of a slot."""
        start, end = int(core.prompt_lengths[slot]), int(core.lengths[slot])
        ids = core.ids[slot, start:end].tolist()
        pieces = TokenPieces.of(core.components.tokenizer)
        tokens = tuple(pieces.last(reversed(ids[: i + 1])) for i in range(len(ids)))
        outcome = self._outcomes[slot]
        has_ended = end > 0 and not core.running[slot] and outcome is not None
        score, reason = outcome if outcome is not None else (None, None)
        score = None if score is None or math.isnan(score) else score
        return RenderState(
            prompt=core.samples[slot].prompt,
            tokens=tokens,
            rewards=tuple(self._rewards[slot, start:end].tolist()),
            probs=tuple(np.exp(self._log_probs[slot, start:end]).tolist()),
            step=int(core.steps[slot]),
            max_steps=core.components.max_new_tokens,
            total_reward=float(self._returns[slot]),
            score=score if has_ended else None,
            end_reason=reason if has_ended else None,
            last_score=None if has_ended else score,
            reward_range=self._range,
        )

    def show(self, core: Core) -> None:
        """Write the first episode as one line to stdout; an error stops that with a warning, since the step counts."""
        if self._line is None:
            return
        try:
            self._line.show(self.state(core, 0))
        except Exception as error:  # noqa: BLE001 (from the stream, or from a tokenizer of the user)
            self._line = None
            warnings.warn(
                f"render_mode='human' shows no further step, as it failed: {type(error).__name__}: {error}",
                stacklevel=4,
            )
