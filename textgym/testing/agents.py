"""Test of an agent on the probe environments."""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from textgym.envs import TextGenVectorEnv
from textgym.errors import unknown_name
from textgym.probes import PROBES, Probe

__all__ = ["ProbeReport", "ProbeResult", "probe_agent"]

HELD_OUT_SEED = 20_000_003
"""Seed of the evaluation, with which the bandit's noise averages out over as few as 32 episodes."""
NUM_CHUNKS = 10
"""Greatest number of evaluations per probe."""


class ProbeAgent(Protocol):
    """Interface of an agent, which those of textgym and Stable-Baselines3 implement."""

    def learn(self, total_timesteps: int) -> Any:
        """Train for this many further tokens."""
        ...

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Return (N,) actions and a state; ``action_masks`` is passed too where the probe needs masks."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Result of one agent on one probe."""

    probe: Probe
    """The probe."""
    seed: int
    """Seed of the agent."""
    mean_return: float
    """Mean return of greedy episodes in the last evaluation."""
    timesteps: int
    """Tokens of training up to it."""
    seconds: float
    """Time spent in ``learn``."""
    passed: bool
    """Whether the return reached the threshold."""


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """Report of ``probe_agent``; ``str()`` formats it as a table."""

    results: tuple[ProbeResult, ...]
    """In order of difficulty, the seeds of a probe adjacent."""

    @property
    def passed(self) -> bool:
        """Whether every probe was passed."""
        return self.first_failure is None

    @property
    def first_failure(self) -> ProbeResult | None:
        """The easiest probe that was not passed: start debugging here."""
        return next((result for result in self.results if not result.passed), None)

    def __str__(self) -> str:
        row = "{:<18} {:>4} {:>7} {:>7} {:>7} {:>9} {:>8}  {}"
        lines = [row.format("probe", "seed", "return", "optimum", "random", "timesteps", "seconds", "").rstrip()]
        for result in self.results:
            probe = result.probe
            returns = [f"{value:.3f}" for value in (result.mean_return, probe.optimal_return, probe.random_return)]
            verdict = "passed" if result.passed else "FAILED"
            lines.append(
                row.format(probe.id, result.seed, *returns, result.timesteps, f"{result.seconds:.2f}", verdict)
            )
        failure = self.first_failure
        if failure is None:
            return "\n".join([*lines, "Every probe was passed."])
        where = f"The first failure is {failure.probe.id} with seed {failure.seed}."
        return "\n".join([*lines, f"{where} {failure.probe.diagnosis}"])


def probe_agent(
    agent_factory: Callable[[Probe, int], ProbeAgent],
    *,
    probes: Sequence[str | Probe] | None = None,
    seeds: Sequence[int] = (0,),
    threshold: float = 0.9,
    num_envs: int = 64,
    num_episodes: int = 128,
) -> ProbeReport:
    """Train an agent on every probe environment and report which it solves.

    The agent trains in steps of a tenth of the probe's ``timesteps``. After each, greedy episodes of a separate
    environment with fixed seed decide whether it has passed.

    Args:
        agent_factory: ``f(probe, seed)``, which returns a new agent with its training environment:
            ``gym.make_vec(probe.id, num_envs=...)``, or ``TextGenVecEnv(n, **probe.keywords)`` for an agent of
            Stable-Baselines3. If the probe needs masks and ``predict`` has a parameter ``action_masks``, it gets
            (N, V) bool; an agent without it fails such a probe.
        probes: Ids or probes; all by default.
        seeds: Seeds passed to the factory, one agent each.
        threshold: Share of the optimal return required to pass.
        num_envs: Number of environments in an evaluation.
        num_episodes: Number of episodes in an evaluation.

    Raises:
        ValueError: If ``probes`` or ``seeds`` are empty, a probe is unknown, or a number is out of range.
        TypeError: If ``agent_factory`` is not callable, or its result lacks ``learn`` or ``predict``, or ``probes`` or
            ``seeds`` is not a sequence.

    >>> class AlwaysB:
    ...     def learn(self, total_timesteps): ...
    ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
    ...         return np.ones(len(observation), dtype=np.int64), state
    >>> report = probe_agent(lambda probe, seed: AlwaysB(), probes=["ProbeConstant-v0", "ProbePrompt-v0"])
    >>> report.first_failure.probe.id
    'ProbePrompt-v0'
    """
    if not callable(agent_factory):
        raise TypeError(f"agent_factory must be a function f(probe, seed), got {agent_factory!r}")
    chosen = [_as_probe(spec) for spec in _listed("probes", list(PROBES) if probes is None else probes)]
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    for name, number in (("num_envs", num_envs), ("num_episodes", num_episodes)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    num_envs = min(num_envs, num_episodes)
    runs = [(each, seed) for each in chosen for seed in _listed("seeds", seeds)]
    return ProbeReport(results=tuple(_run(agent_factory, *run, threshold, num_envs, num_episodes) for run in runs))


def _listed(name: str, values: Any) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, got {values!r}")
    if not values:
        raise ValueError(f"{name} is empty")
    return values


def _as_probe(spec: Any) -> Probe:
    if isinstance(spec, Probe):
        return spec
    if spec not in PROBES:
        raise unknown_name("probe", spec, PROBES)
    return PROBES[spec]


def _run(
    agent_factory: Callable[[Probe, int], ProbeAgent],
    probe: Probe,
    seed: int,
    threshold: float,
    num_envs: int,
    num_episodes: int,
) -> ProbeResult:
    agent = agent_factory(probe, seed)
    for method in ("learn", "predict"):
        if not callable(getattr(agent, method, None)):
            raise TypeError(
                f"agent_factory must return an agent with learn and predict, got {agent!r} without {method}"
            )
    # Without it, Stable-Baselines3 restarts its step count at each call.
    known = inspect.signature(agent.learn).parameters
    continuing = {"reset_num_timesteps": False} if "reset_num_timesteps" in known else {}
    chunk = -(-probe.timesteps // NUM_CHUNKS)
    before = getattr(agent, "num_timesteps", 0)
    timesteps, seconds, mean_return, passed = 0, 0.0, float("nan"), False
    while not passed and timesteps < probe.timesteps:
        start = time.perf_counter()
        agent.learn(chunk, **continuing)
        seconds += time.perf_counter() - start
        # An agent may train on whole batches and so exceed the chunk.
        timesteps = max(timesteps + chunk, getattr(agent, "num_timesteps", 0) - before)
        mean_return = _mean_return(agent, probe, num_envs, num_episodes)
        passed = mean_return >= threshold * probe.optimal_return
    return ProbeResult(
        probe=probe, seed=seed, mean_return=mean_return, timesteps=timesteps, seconds=seconds, passed=passed
    )


def _takes_masks(predict: Callable[..., Any]) -> bool:
    parameters = inspect.signature(predict).parameters
    return "action_masks" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _mean_return(agent: ProbeAgent, probe: Probe, num_envs: int, num_episodes: int) -> float:
    """Return the mean return of greedy episodes.

    Each environment counts the same number of episodes, since otherwise short ones would be over-represented.
    """
    env = TextGenVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **probe.keywords)
    wanted = (num_episodes + np.arange(num_envs)) // num_envs
    ended = np.zeros(num_envs, dtype=np.int64)
    total = 0.0
    observations, _ = env.reset(seed=HELD_OUT_SEED)
    state, starts = None, np.ones(num_envs, dtype=np.bool_)
    masked = probe.needs_masks and _takes_masks(agent.predict)
    while (ended < wanted).any():
        masks = {"action_masks": env.action_masks().copy()} if masked else {}  # torch warns about read-only arrays
        actions, state = agent.predict(observations, state=state, episode_start=starts, deterministic=True, **masks)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        total += float(rewards[ended < wanted].sum())
        starts = terminated | truncated
        ended += starts
    return total / num_episodes
