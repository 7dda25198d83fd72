"""Training runs on disk: settings, metrics as CSV and TensorBoard events, learning curve, language model."""

import csv
import io
import itertools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from textgym_agents.callbacks import Callback
from textgym_agents.checkpoint import save_json
from textgym_agents.recorder import append_whole

__all__ = ["RunFolder"]


class RunFolder(Callback):
    """Logs a training run and saves what was trained: ``agent.learn(100_000, callback=RunFolder("runs/1"))``.

    | file | content |
    | --- | --- |
    | ``config.json`` | the algorithm, its settings, and ``config`` |
    | ``metrics.csv``, ``events.out.tfevents.*`` | one row per update, and the same for TensorBoard |
    | ``lm/`` | the language model as a plain Hugging Face folder, when training ends |
    | ``agent/`` | the checkpoint that the agent's ``load`` reads, when training ends |
    | ``learning_curve.png`` | mean score and KL to the reference against tokens, when training ends |

    Training also ends by an exception or Ctrl-C. Another ``learn`` with the same ``RunFolder`` continues the folder.

    A log that cannot be written, for example because the disk is full, gives one warning, and training goes on.
    ``metrics.csv`` is completed when it can be written again; TensorBoard events end at the failure.

    Args:
        path: The folder; created when training starts.
        config: What else decides the run, such as the environment's keywords, to be kept in ``config.json``; must be
            JSON-serialisable.

    Attributes:
        rows: The metrics of each update so far.

    Raises:
        FileExistsError: If the folder already holds a run.
        TypeError: If JSON cannot hold ``config``.
    """

    def __init__(self, path: str | Path, config: dict[str, Any] | None = None) -> None:
        self.path, self.config = Path(path), config or {}
        if any((self.path / name).exists() for name in ("config.json", "metrics.csv")):
            raise FileExistsError(f"{self.path} already holds a run; choose another folder or delete it")
        json.dumps(self.config)  # raises where it cannot be kept
        self.rows: list[dict[str, float]] = []
        self._columns: list[str] = []  # of metrics.csv; empty while the file is not as it should be
        self._tensorboard: SummaryWriter | None = None
        self._has_warned = False

    def on_training_start(self, agent: Any) -> None:
        """Create the folder and write ``config.json``."""
        self.path.mkdir(parents=True, exist_ok=True)
        settings = {"algorithm": type(agent).__name__, "settings": asdict(agent.config)}
        save_json(self.path / "config.json", self.config | settings)
        self._tensorboard = SummaryWriter(str(self.path))

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> None:
        """Log the metrics of one update. A metric that appears for the first time becomes a new column."""
        self.rows.append(metrics)
        self._attempt(self._write_csv)
        if self._tensorboard is not None and not self._attempt(self._write_events):
            self._tensorboard = None

    def on_training_end(self, agent: Any) -> None:
        """Save the agent and the language model, then close the logs; each is tried even if another one raises."""
        with ExitStack() as last_in_first_out:
            last_in_first_out.callback(self._attempt, lambda: self.plot(self.path / "learning_curve.png"))
            if self._tensorboard is not None:
                last_in_first_out.callback(self._attempt, self._tensorboard.close)
            last_in_first_out.callback(lambda: agent.policy.merged().save_pretrained(self.path / "lm"))
            last_in_first_out.callback(agent.save, self.path / "agent")

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

    def _write_csv(self) -> None:
        path = self.path / "metrics.csv"
        columns, self._columns = self._columns, []
        if self.rows[-1].keys() <= set(columns):
            with path.open("ab", buffering=0) as file:
                append_whole(file, _csv_lines(columns, self.rows[-1:]))
        else:
            columns = list(dict.fromkeys(itertools.chain.from_iterable(self.rows)))
            header = dict(zip(columns, columns, strict=True))
            whole = path.with_name("metrics.csv.new")
            whole.write_bytes(_csv_lines(columns, [header, *self.rows]))
            whole.replace(path)
        self._columns = columns

    def _write_events(self) -> None:
        assert self._tensorboard is not None
        for name, value in self.rows[-1].items():
            self._tensorboard.add_scalar(name, value, int(self.rows[-1]["time/total_timesteps"]))

    def _attempt(self, write: Callable[[], None]) -> bool:
        """Return whether the log could be written; warn the first time that it could not."""
        try:
            write()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(f"the log in {self.path} is incomplete, training goes on: {error}", stacklevel=3)
            return False
        return True


def _csv_lines(columns: list[str], rows: Sequence[Mapping[str, object]]) -> bytes:
    """Return rows as lines of CSV, NaN where a row has no such column."""
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval=math.nan, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _smoothed(values: list[float], reach: int = 3) -> list[float]:
    """Return each value's mean with up to ``reach`` neighbours on either side, so that the curve does not lag."""
    return [fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
