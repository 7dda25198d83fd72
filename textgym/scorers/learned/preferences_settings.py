"""How a reward model is trained, and what came of it."""

from dataclasses import dataclass
from math import isfinite

__all__ = ["PreferenceReport", "PreferenceSettings"]


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """How a reward model is trained.

    Raises:
        ValueError: If a number is out of its range.
    """

    freeze: bool = False
    """Whether only the head learns, which costs one forward for each text; else the whole model does."""
    epochs: int = 3
    """Times that each pair is learnt from."""
    learning_rate: float | None = None
    """Of AdamW, at the beginning; it falls linearly to a tenth. By default 0.01 where the trunk is frozen, else 0.0005
    for a model of up to 10 million weights and 0.00001 for a larger one."""
    batch_size: int = 32
    """Pairs of one step."""
    held_out: float = 0.1
    """Share of the pairs that nothing is learnt from, on which the accuracy is measured; 0 for none."""
    seed: int = 0
    """Decides which pairs are held out, and in what order the others come."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.learning_rate is not None and not (self.learning_rate > 0 and isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be a share from 0 to below 1, got {self.held_out!r}")


@dataclass(frozen=True, kw_only=True)
class PreferenceReport:
    """What came of training a reward model."""

    num_training: int
    """Pairs that it learnt from."""
    num_held_out: int
    """Pairs that it did not."""
    training_accuracy: float
    """Share of the former in which the chosen completion has the higher reward, afterwards."""
    held_out_accuracy: float | None
    """The same of the latter; None where there are none."""
    held_out_loss: float | None
    """Mean of -log sigmoid(r(chosen) - r(rejected)) over them, in nats: log 2 is what guessing has."""
