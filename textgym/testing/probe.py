"""The ladder of probe environments as a function: which rung is the first that an agent does not climb."""

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

__all__ = ["Ladder", "Rung", "probe"]

HELD_OUT_SEED = 20_000_003
"""Of the evaluation. It makes the bandit's coins nearly fair in as few as 32 episodes: the better arm always passes."""
NUM_CHUNKS = 10
"""Evaluations of an agent that does not pass earlier."""


class ProbeAgent(Protocol):
    """What an agent needs to be probed: two of the methods that textgym's and Stable-Baselines3's agents have."""

    def learn(self, total_timesteps: int) -> Any:
        """Train for so many further tokens."""
        ...

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Return (N,) actions and a state.

        Where the probe needs masks, ``action_masks`` is given too, if there is such a parameter.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Rung:
    """How one agent did on one probe."""

    probe: Probe
    """The environment."""
    seed: int
    """What the agent was made with."""
    mean_return: float
    """Of greedy episodes, at the last evaluation."""
    timesteps: int
    """Tokens until then."""
    seconds: float
    """Time spent in ``learn``."""
    passed: bool
    """Whether the return came near enough to the optimum."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The report of :func:`probe`; ``str()`` makes a table of it."""

    rungs: tuple[Rung, ...]
    """In ladder order, the seeds of a probe side by side."""

    @property
    def passed(self) -> bool:
        """Whether every rung was passed."""
        return self.first_failure is None

    @property
    def first_failure(self) -> Rung | None:
        """The easiest rung that was not passed, which is where to look first."""
        return next((rung for rung in self.rungs if not rung.passed), None)

    def __str__(self) -> str:
        row = "{:<18} {:>4} {:>7} {:>7} {:>7} {:>9} {:>8}  {}"
        lines = [row.format("probe", "seed", "return", "optimum", "random", "timesteps", "seconds", "").rstrip()]
        for rung in self.rungs:
            goals = [
                f"{value:.3f}" for value in (rung.mean_return, rung.probe.optimal_return, rung.probe.random_return)
            ]
            verdict = "passed" if rung.passed else "FAILED"
            lines.append(row.format(rung.probe.id, rung.seed, *goals, rung.timesteps, f"{rung.seconds:.2f}", verdict))
        failure = self.first_failure
        if failure is None:
            return "\n".join([*lines, "Every rung was passed."])
        meaning = failure.probe.failing_means
        return "\n".join([*lines, f"The first failure is {failure.probe.id} with seed {failure.seed}. {meaning}"])


def probe(
    agent_factory: Callable[[Probe, int], ProbeAgent],
    *,
    probes: Sequence[str | Probe] | None = None,
    seeds: Sequence[int] = (0,),
    threshold: float = 0.9,
    num_envs: int = 64,
    num_episodes: int = 128,
) -> Ladder:
    """Train an agent on every probe environment, and say on which one it fails first.

    The agent learns a tenth of the probe's ``timesteps`` at a time. After each, greedy episodes of an environment of
    their own, which start the same each time, decide whether it has passed.

    Args:
        agent_factory: ``f(probe, seed)``, which makes a new agent and the environment that it trains on:
            ``gym.make_vec(probe.id, num_envs=...)``, or ``TextGenVecEnv(n, **probe.keywords)`` for one of
            Stable-Baselines3. Where the probe needs masks, ``predict`` is given ``action_masks`` ((N, V) bool);
            an agent whose ``predict`` has no such parameter goes without, and fails.
        probes: Ids or probes, the whole ladder by default.
        seeds: Given to the factory, one agent each.
        threshold: Share of the optimal return that is enough.
        num_envs: Slots of the evaluation.
        num_episodes: Episodes of an evaluation.

    Raises:
        ValueError: If ``probes`` or ``seeds`` are empty, a probe is unknown, or a number is out of range.
        TypeError: If ``agent_factory`` cannot be called, or what it makes lacks ``learn`` or ``predict``.

    >>> class AlwaysB:
    ...     def learn(self, total_timesteps): ...
    ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
    ...         return np.ones(len(observation), dtype=np.int64), state
    >>> ladder = probe(lambda probe, seed: AlwaysB(), probes=["ProbeConstant-v0", "ProbePrompt-v0"])
    >>> ladder.first_failure.probe.id
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
    slots = min(num_envs, num_episodes)
    every = [(each, seed) for each in chosen for seed in _listed("seeds", seeds)]
    return Ladder(rungs=tuple(_climb(agent_factory, *one, threshold, slots, num_episodes) for one in every))


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


def _climb(
    agent_factory: Callable[[Probe, int], ProbeAgent],
    probe: Probe,
    seed: int,
    threshold: float,
    num_envs: int,
    num_episodes: int,
) -> Rung:
    agent = agent_factory(probe, seed)
    for method in ("learn", "predict"):
        if not callable(getattr(agent, method, None)):
            raise TypeError(f"agent_factory must make an agent with learn and predict, got {agent!r} without {method}")
    # Stable-Baselines3 would count from 0 again at each call.
    known = inspect.signature(agent.learn).parameters
    continuing = {"reset_num_timesteps": False} if "reset_num_timesteps" in known else {}
    chunk = -(-probe.timesteps // NUM_CHUNKS)
    before = getattr(agent, "num_timesteps", 0)
    timesteps, seconds, mean_return, passed = 0, 0.0, float("nan"), False
    while not passed and timesteps < probe.timesteps:
        start = time.perf_counter()
        agent.learn(chunk, **continuing)
        seconds += time.perf_counter() - start
        # An agent may learn from whole batches and so go beyond the chunk.
        timesteps = max(timesteps + chunk, getattr(agent, "num_timesteps", 0) - before)
        mean_return = _mean_return(agent, probe, num_envs, num_episodes)
        passed = mean_return >= threshold * probe.optimal_return
    return Rung(probe=probe, seed=seed, mean_return=mean_return, timesteps=timesteps, seconds=seconds, passed=passed)


def _takes_masks(predict: Callable[..., Any]) -> bool:
    parameters = inspect.signature(predict).parameters
    return "action_masks" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _mean_return(agent: ProbeAgent, probe: Probe, num_envs: int, num_episodes: int) -> float:
    """Play greedily; each slot counts its first few episodes, or short ones would be counted too often."""
    env = TextGenVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **probe.keywords)
    wanted = (num_episodes + np.arange(num_envs)) // num_envs
    ended = np.zeros(num_envs, dtype=np.int64)
    total = 0.0
    observations, _ = env.reset(seed=HELD_OUT_SEED)
    state, starts = None, np.ones(num_envs, dtype=np.bool_)
    masked = probe.needs_masks and _takes_masks(agent.predict)
    while (ended < wanted).any():
        masks = {"action_masks": env.action_masks().copy()} if masked else {}  # torch warns of read-only arrays
        actions, state = agent.predict(observations, state=state, episode_start=starts, deterministic=True, **masks)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        total += float(rewards[ended < wanted].sum())
        starts = terminated | truncated
        ended += starts
    return total / num_episodes
