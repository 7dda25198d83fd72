"""Folder of a training run: settings, metrics, learning curve, checkpoints."""

import csv
import io
import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from textgym_agents.callbacks import Callback, Unit
from textgym_agents.checkpoint import save_json
from textgym_agents.checkpointing import Checkpoint
from textgym_agents.recording import append_whole

__all__ = ["RunFolder", "read_metrics"]


class RunFolder(Callback):
    """Callback that logs a training run and saves the agent: ``agent.learn(100_000, callback=RunFolder("runs/1"))``.

    | file | content |
    | --- | --- |
    | ``config.json`` | the algorithm, its settings, and ``config`` |
    | ``metrics.csv``, ``events.out.tfevents.*`` | metrics of each update, as CSV and for TensorBoard |
    | ``checkpoints/`` | those of a ``Checkpoint``: the agent's ``load`` takes this folder, or that of the run |
    | ``lm/`` | the language model as a plain Hugging Face folder |
    | ``learning_curve.png`` | mean score and KL to the reference against tokens |

    The last three are written when training ends, also by an exception or Ctrl-C; checkpoints before too, with
    ``every``. Metrics that other callbacks add are logged, in whatever order they are listed. Another ``learn`` with
    the same ``RunFolder`` continues the folder. If a log cannot be written, for example because the disk is full,
    training continues after one warning; ``metrics.csv`` is completed at the next success, TensorBoard events end.

    Args:
        path: The folder; created when training starts.
        config: Additional JSON-serialisable content of ``config.json``, such as the environment's keywords.
        every: Updates or tokens from one checkpoint to the next; see ``Checkpoint``, also for the rest.
        unit: ``"updates"`` or ``"tokens"``.
        keep: Number of checkpoints that are kept.

    Attributes:
        rows: The metrics of each update so far.

    Raises:
        FileExistsError: If the folder already contains a run.
        TypeError: If ``config`` is not JSON-serialisable.
        ValueError: If ``every`` or ``keep`` is below 1, or ``unit`` is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        config: dict[str, Any] | None = None,
        *,
        every: int | None = None,
        unit: Unit = "updates",
        keep: int = 1,
    ) -> None:
        self.path, self.config = Path(path), config or {}
        if any((self.path / name).exists() for name in ("config.json", "metrics.csv")):
            raise FileExistsError(f"{self.path} already contains a run; choose another folder or delete it")
        json.dumps(self.config)  # raises if it is not serialisable
        self.rows: list[dict[str, float]] = []
        self._num_logged = 0
        self._checkpoint = Checkpoint(self.path / "checkpoints", every, unit=unit, keep=keep)
        self._columns: list[str] = []  # of metrics.csv; empty while the file is incomplete
        self._tensorboard: SummaryWriter | None = None
        self._has_warned = False

    def on_training_start(self, agent: Any) -> None:
        """Create the folder and write ``config.json``."""
        self.path.mkdir(parents=True, exist_ok=True)
        settings = {"algorithm": type(agent).__name__, "settings": asdict(agent.config)}
        save_json(self.path / "config.json", self.config | settings)
        self._tensorboard = SummaryWriter(str(self.path))
        self._checkpoint.on_training_start(agent)

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> None:
        """Add the metrics of one update to ``rows``."""
        self.rows.append(metrics)

    def on_update_complete(self, agent: Any, metrics: dict[str, float]) -> None:
        """Log the metrics of the update, a new metric as a new column, and save the agent if it is time to."""
        self._log()
        self._checkpoint.on_update_complete(agent, metrics)

    def get_state(self) -> dict[str, Any]:
        """Return the state of the schedule of checkpoints."""
        return self._checkpoint.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state of the schedule of checkpoints."""
        self._checkpoint.set_state(state)

    def _log(self) -> None:
        self._num_logged = len(self.rows)
        self._attempt(self._write_csv)
        if self._tensorboard is not None and not self._attempt(self._write_events):
            self._tensorboard = None

    def on_training_end(self, agent: Any) -> None:
        """Save the agent and the language model and close the logs; an error in one does not skip the others."""
        if self._num_logged < len(self.rows):  # a callback raised an exception
            self._log()
        with ExitStack() as last_in_first_out:
            last_in_first_out.callback(self._attempt, lambda: self.plot(self.path / "learning_curve.png"))
            if self._tensorboard is not None:
                last_in_first_out.callback(self._attempt, self._tensorboard.close)
            last_in_first_out.callback(lambda: agent.policy.merged().save_pretrained(self.path / "lm"))
            last_in_first_out.callback(self._checkpoint.on_training_end, agent)

    def plot(self, path: str | Path) -> None:
        """Draw mean score and KL to the reference against tokens."""
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
        below.set_ylabel("KL to the initial LM\n(nats per token)")
        below.set_xlabel("tokens")
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
        """Return whether writing succeeded; warn at the first failure."""
        try:
            write()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(f"the log in {self.path} is incomplete, training continues: {error}", stacklevel=3)
            return False
        return True


def read_metrics(run: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Return the metrics of each update of a run, from ``metrics.csv`` of a ``RunFolder``.

    Raises:
        FileNotFoundError: If the folder has no ``metrics.csv``.
        ValueError: If a line of the file is damaged.
    """
    path = Path(run) / "metrics.csv"
    if not path.exists():
        raise FileNotFoundError(f"{run} is not the folder of a run: it has no metrics.csv")
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            try:
                rows.append({name: float(value) for name, value in row.items()})
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, update {number} is damaged or cut off: {error}") from error
    return rows


def _csv_lines(columns: list[str], rows: Sequence[Mapping[str, object]]) -> bytes:
    """Return rows as lines of CSV, NaN for missing columns."""
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval=math.nan, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _smoothed(values: list[float], reach: int = 3) -> list[float]:
    """Return the centred moving average over up to ``2 * reach + 1`` values."""
    return [fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
