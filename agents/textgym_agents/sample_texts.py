"""Texts of a training, printed and written for TensorBoard while it runs."""

import warnings
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from textgym.rendering import display_text, printable
from textgym_agents.callbacks import Callback
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes

__all__ = ["SampleTexts"]


class SampleTexts(Callback):
    """Callback that shows some texts of every k-th update: ``agent.learn(100_000, callback=SampleTexts(every=20))``.

    They are the first episodes of the update, so that nothing is sampled in addition. Of each, score, prompt and
    completion are shown in display form: control characters are visible, as in ``textgym.rendering.display_text``.

    Args:
        every: k, the number of updates from one showing to the next; the first update is shown too.
        num_texts: Number of texts.
        path: Folder for TensorBoard, where they are the text ``samples``; that of a ``RunFolder``, for example. By
            default they are only printed. If it cannot be written, training continues after one warning.
        prints: Whether to print them.

    Raises:
        ValueError: If ``every`` or ``num_texts`` is below 1.
    """

    def __init__(
        self, every: int = 10, *, num_texts: int = 3, path: str | Path | None = None, prints: bool = True
    ) -> None:
        self.every, self.num_texts = check_count("every", every), check_count("num_texts", num_texts)
        self.prints = prints
        self._num_updates = 0
        self.path = None if path is None else Path(path)
        self._writer: SummaryWriter | None = None
        self._lines: list[str] = []

    def on_training_start(self, agent: Any) -> None:
        """Open the folder for TensorBoard."""
        if self.path is not None:
            self._writer = SummaryWriter(str(self.path))

    def on_rollout_end(self, agent: Any, episodes: Episodes) -> None:
        """Keep the texts of the update, if it is to be shown."""
        self._lines = []
        if self._num_updates % self.every == 0:
            self._lines = [_line(info) for info in episodes.infos[: self.num_texts]]
        self._num_updates += 1

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> None:
        """Show the texts."""
        if not self._lines:
            return
        tokens = int(metrics["time/total_timesteps"])
        if self.prints:
            for line in (f"After {tokens:,} tokens:", *self._lines):
                tqdm.write(printable(line))
        if self._writer is not None:
            try:  # indented, since TensorBoard reads Markdown
                self._writer.add_text("samples", "\n".join(f"    {line}" for line in self._lines), tokens)
                self._writer.flush()
            except OSError as error:
                self._writer = None
                warnings.warn(f"no more texts are written to {self.path}, training continues: {error}", stacklevel=2)

    def on_training_end(self, agent: Any) -> None:
        """Close the file of TensorBoard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _line(info: dict[str, Any]) -> str:
    """Return score, prompt and completion of an episode, on one line."""
    text = display_text(f"{info['prompt']}|{info['completion']}", one_line=True)
    return f"  [{info['score']:+.2f}] {text}"
