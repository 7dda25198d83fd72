"""From a probe to the keywords of an environment."""

from typing import Any

from textgym.errors import unknown_name
from textgym.probes.ladder import PROBES

__all__ = ["probe_keywords"]


def probe_keywords(*, probe: str, **keywords: Any) -> dict[str, Any]:
    """Return the keywords of a probe environment, which has a small vocabulary and a known optimum.

    Args:
        probe: Its id.
        **keywords: Fields of ``TextGenConfig``, which go before the probe's.

    Raises:
        ValueError: If there is no such probe.

    >>> from textgym import TextGenEnv
    >>> env = TextGenEnv(id="ProbeCopy-v0")
    >>> env.reset(seed=0, options={"prompt": "ca"})[0]
    array([2, 0, 5, 5])
    """
    if probe not in PROBES:
        raise unknown_name("probe", probe, PROBES)
    return {**PROBES[probe].keywords, **keywords}
