"""What :func:`textgym.testing.check_scorer` found, and how it is shown."""

from dataclasses import dataclass

__all__ = ["Check", "ScorerReport"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked."""

    name: str
    """What was checked, in a few words."""
    passed: bool
    """Whether it holds."""
    detail: str
    """What was seen; of a failure, the sentence in the error's message."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ScorerReport:
    """The report of :func:`check_scorer`; ``str()`` makes a table of it."""

    name: str
    """The scorer's name."""
    checks: tuple[Check, ...]
    """What was checked, in order."""
    range_seen: tuple[float, float] | None
    """The least and the greatest score of a text; None where it never applied."""
    microseconds: dict[int, float] | None = None
    """Per text of 20 words, by the size of the batch; None unless asked for."""

    @property
    def passed(self) -> bool:
        """Whether every check was passed."""
        return all(check.passed for check in self.checks)

    def __repr__(self) -> str:
        return f"<{self._verdict()}, {self._range()}>"

    def __str__(self) -> str:
        width = max(len("check"), *(len(check.name) for check in self.checks))
        lines = [f"{'check':<{width}}  passed  detail"]
        for check in self.checks:
            lines.append(f"{check.name:<{width}}  {'yes' if check.passed else 'NO':<6}  {check.detail}".rstrip())
        lines.append(f"{self._verdict()}, {self._range()}.")
        if self.range_seen is None:
            lines.append("No score seen: give references=, metadata= or prompt= if it needs them.")
        if self.microseconds is not None:
            times = ", ".join(f"{value:,.1f} in a batch of {size}" for size, value in self.microseconds.items())
            lines.append(f"Microseconds per text of 20 words: {times}.")
        return "\n".join(lines)

    def _verdict(self) -> str:
        failed = sum(not check.passed for check in self.checks)
        what = f"{failed} of {len(self.checks)} checks failed" if failed else f"{len(self.checks)} checks passed"
        return f"scorer {self.name!r}: {what}"

    def _range(self) -> str:
        if self.range_seen is None:
            return "no score seen"
        low, high = self.range_seen
        return f"scores seen in [{low:.4g}, {high:.4g}]"
