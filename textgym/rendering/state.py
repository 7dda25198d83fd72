"""What is shown of an episode."""

import math
from dataclasses import dataclass

__all__ = ["RenderState"]


@dataclass(frozen=True, kw_only=True)
class RenderState:
    """An episode, running or ended, as the render modes show it."""

    prompt: str
    tokens: tuple[str, ...] = ()
    """The T texts that the tokens of the completion append; ``""`` for EOS."""
    rewards: tuple[float, ...] = ()
    """Reward of each of the T tokens; NaN where unknown."""
    probs: tuple[float, ...] = ()
    """pi(a|s) of each of the T tokens; NaN where unknown."""
    step: int = 0
    max_steps: int = 1
    """The budget, ``max_new_tokens``."""
    total_reward: float = 0.0
    """Sum of the rewards so far; NaN if unknown."""
    score: float | None = None
    """Score of the text, at its end."""
    end_reason: str | None = None
    """Why the episode ended; None while it runs."""
    last_score: float | None = None
    """Score of the episode before this one."""
    reward_range: tuple[float, float] = (-1.0, 1.0)
    """Ends of a bar that shows the reward or score."""

    @property
    def completion(self) -> str:
        """The text so far, without the prompt."""
        return "".join(self.tokens)

    @property
    def status(self) -> str:
        """Step, budget, reward where it is not the score, score of this or the previous episode, and end reason."""
        parts = [f"step {self.step}/{self.max_steps}"]
        if not math.isnan(self.total_reward) and self.total_reward != self.score:
            parts.append(f"reward {self.total_reward:+.3f}")
        if self.score is not None:
            parts.append(f"score {self.score:+.3f}")
        elif self.last_score is not None:
            parts.append(f"previous score {self.last_score:+.3f}")
        if self.end_reason is not None:
            parts.append(self.end_reason)
        return "  ".join(parts)
