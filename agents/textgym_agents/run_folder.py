"""A run on disk: its settings, its metrics as CSV and TensorBoard, its learning curve, its language model."""

import csv
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from textgym_agents.checkpoint import save_json
from textgym_agents.policy import LMPolicy

__all__ = ["RunFolder"]


class RunFolder:
    """Logs a training run; give it to ``learn`` as the callback.

    The folder then holds ``config.json``, ``metrics.csv`` (a row per update), TensorBoard events, and after
    ``finish`` the picture ``learning_curve.png`` and the trained language model in ``lm/``, a plain Hugging Face
    folder.

    Args:
        path: The folder; made if it is not there.
        config: What decided the run; must fit into JSON.

    Raises:
        FileExistsError: If the folder already holds a run.
    """

    def __init__(self, path: str | Path, config: dict[str, Any]) -> None:
        self.path = Path(path)
        if (self.path / "metrics.csv").exists():
            raise FileExistsError(f"{self.path} already holds a run; choose another folder or delete it")
        self.path.mkdir(parents=True, exist_ok=True)
        save_json(self.path / "config.json", config)
        self.rows: list[dict[str, float]] = []
        self._tensorboard = SummaryWriter(str(self.path))

    def __call__(self, agent: Any, metrics: dict[str, float]) -> None:
        """Append one update's metrics.

        Raises:
            ValueError: If they have a name that the first update's had not: the columns are fixed then.
        """
        with (self.path / "metrics.csv").open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0] if self.rows else metrics), restval=math.nan)
            if not self.rows:
                writer.writeheader()
            writer.writerow(metrics)
        self.rows.append(metrics)
        step = int(metrics["time/total_timesteps"])
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, step)

    def finish(self, policy: LMPolicy) -> None:
        """Write the learning curve and the language model, and close the TensorBoard file."""
        self._tensorboard.close()
        policy.merged().save_pretrained(self.path / "lm")
        self.plot(self.path / "learning_curve.png")

    def plot(self, path: str | Path) -> None:
        """Draw mean score and KL to the reference against tokens, as far as the agent tells them."""
        tokens = [row["time/total_timesteps"] for row in self.rows]
        kls = [row.get("train/kl_reference", math.nan) for row in self.rows]
        figure = Figure(figsize=(7, 5), layout="tight")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        scores = [row.get("rollout/score_mean", math.nan) for row in self.rows]
        above.plot(tokens, scores, color="tab:blue", alpha=0.3, linewidth=1, label="each update")
        above.plot(tokens, _smoothed(scores), color="tab:blue", label="mean of seven updates")
        above.set_ylabel("mean score")
        above.legend(loc="lower right")
        below.plot(tokens, kls, color="tab:orange")
        below.set_ylabel("KL to the starting LM\n(nats per token)")
        below.set_xlabel("tokens written")
        for axes in (above, below):
            axes.grid(alpha=0.3)
        figure.savefig(path, dpi=120)


def _smoothed(values: list[float], reach: int = 3) -> list[float]:
    """Return each value's mean with up to ``reach`` neighbours on either side, so that the curve does not lag."""
    return [fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
