"""The states that the actions of recorded or collected episodes visited, rebuilt in a copy of their environment."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from textgym.batch import TextBatch
from textgym.envs.components import KLTerm
from textgym.envs.core import Core
from textgym.envs.interface import CoreInterface, combine_snapshots, select_slots
from textgym.envs.reset import ResetRequest
from textgym.lm import ReferenceLM, load_lm
from textgym.prompts import ListPrompts, Sample
from textgym.prompts.base import IndexedPrompts
from textgym.rewards import AdaptiveCoefficient, Reference
from textgym.scorers.evaluation import observes
from textgym.users import Reply
from textgym_agents.decoding.base import text_gen_env
from textgym_agents.episodes import Episodes
from textgym_agents.policy import BasePolicy
from textgym_agents.reference import ReferenceKL, ReferencePolicy

__all__ = ["Replay", "as_reference", "env_with_kl", "replay", "samples_of"]


class Replay(NamedTuple):
    """The M states in which the T actions of B episodes were taken."""

    states: dict[str, Any]
    """A snapshot of M slots, see ``CoreInterface.get_state``: the first states of all episodes, then the second, ..."""
    slots: npt.NDArray[np.int64]
    """(B, T + 1), the slot of each state; -1 after the last action, where V = 0."""
    rewards: npt.NDArray[np.float64]
    """(B, T) reward of each action, 0 after the end; shares of ``reward="redistributed"`` stay in the last one."""


def samples_of(env: Any, episodes: Episodes) -> list[Sample]:
    """Return the B samples that the episodes started from, with their references and metadata.

    They are those in ``episodes.starts``, if known; else the samples with the same prompt among the environment's
    prompts; else bare prompts, as those given to ``reset``.

    Args:
        env: The environment of the episodes, of any interface of the TextGen family.
        episodes: B episodes.

    Raises:
        ValueError: If several samples of the environment share a prompt and differ in references or metadata.
    """
    base = text_gen_env(env)
    known: defaultdict[str, list[Sample]] = defaultdict(list)
    samples = []
    for b, info in enumerate(episodes.infos):
        if (start := _start_of(episodes, b)) is not None:
            samples.append(start.sample)
            continue
        prompt = info.get("prompt")
        if prompt is None:
            prompt = base.tokenizer.decode(_prompt_ids(episodes, b)[0].tolist())
        if not known and isinstance(source := base.core.components.prompts, IndexedPrompts):
            for sample in map(source.__getitem__, range(len(source))):
                if sample not in known[sample.prompt]:
                    known[sample.prompt].append(sample)
        found = known.get(prompt) or [Sample(prompt)]
        if len(found) > 1:
            raise ValueError(
                f"episode {b} started from one of {len(found)} samples with the prompt {prompt!r:.60}, which differ in "
                "references or metadata, and episodes.starts does not tell which: collect or record the episodes anew"
            )
        samples.append(found[0])
    return samples


def replay(env: CoreInterface, episodes: Episodes) -> Replay:
    """Return the states and rewards of B episodes, by taking their actions in a copy of their environment.

    Every start state is that of a reset with the episode's sample and prefix. Recorded replies of a simulated user are
    repeated. Prompts, texts and ends are compared with those of the episodes; rewards too, where the scorer is
    deterministic and does not learn, and there is no KL penalty, whose coefficient may have changed.

    Args:
        env: The unwrapped environment, which stays as it is; see ``env_with_kl``.
        episodes: B episodes of an equally configured environment, collected or read from a file.

    Raises:
        ValueError: If an episode cannot be rebuilt: of another environment, with a prompt that is not its text's or is
            shared by several samples, or with actions that were invalid and wrote nothing.
        ScorerError: If the scorer fails.
        InvalidActionError: If an action is masked.
    """
    env = env.clone()
    size, width = episodes.rewards.shape
    num_steps = episodes.num_steps.numpy()
    _check_positions(env, episodes)
    samples = samples_of(env, episodes)
    components = replace(env.core.components, prompts=ListPrompts(samples))
    if components.dialogue is not None and all("turns" in info for info in episodes.infos):
        user = _RecordedUser(episodes.infos)
        components = replace(components, dialogue=replace(components.dialogue, user=user))
    core = Core(components, size, max_reward=env.core.max_reward)
    starts = [_start(env, episodes, b, sample) for b, sample in enumerate(samples)]
    core.reset(ResetRequest(np.arange(size), starts, [np.random.default_rng(b) for b in range(size)]))
    ids, positions, log_probs = (x.numpy() for x in (episodes.ids, episodes.positions, episodes.log_probs))
    if components.kl is not None and np.isnan(log_probs[episodes.mask.numpy()]).any():
        raise ValueError("the return contains a KL penalty, and these episodes have no log-probabilities of actions")
    index, rewards, parts = np.full((size, width + 1), -1), np.zeros((size, width)), []
    count = 0
    for t in range(int(num_steps.max())):
        acts = t < num_steps
        if not core.running[acts].all():
            b = int(np.flatnonzero(acts & ~core.running)[0])
            raise _mismatch(b, f"it ends after {t} of {num_steps[b]} actions in this environment")
        index[acts, t] = count + np.arange(acts.sum())
        count += int(acts.sum())
        parts.append(select_slots(core.get_state(), np.flatnonzero(acts)))
        if not env.has_turns:  # then no generator is used: one stands for all, as a dict per state takes a kilobyte
            parts[-1]["rngs"] = parts[0]["rngs"][:1] * int(acts.sum())
        if components.kl is not None:
            core.set_log_probs(np.where(acts, log_probs[:, t], 0.0))
        rewards[:, t] = core.step(np.where(acts, ids[np.arange(size), positions[:, t]], 0), where=acts).rewards
    _check_ends(core, episodes, rewards)
    return Replay(_joined(parts), index, rewards)


def env_with_kl(env: CoreInterface, kl_coef: float, reference: Any) -> CoreInterface:
    """Return a clone whose rewards contain ``-kl_coef * (log pi(a|s) - log pi_ref(a|s))``, the estimator k1.

    Args:
        env: The unwrapped environment.
        kl_coef: The coefficient, in reward per nat; 0 adds no penalty.
        reference: See ``as_reference``.

    Raises:
        ValueError: If the coefficient is negative, or the environment has a KL penalty already.
        TypeError: If ``reference`` is of another type.
    """
    if not kl_coef >= 0:
        raise ValueError(f"kl_coef must be at least 0, got {kl_coef!r}")
    env = env.clone()
    if kl_coef == 0:
        return env
    if env.core.components.kl is not None:
        raise ValueError("the environment has a KL penalty already (kl_penalty): kl_coef must be 0")
    term = KLTerm(AdaptiveCoefficient(kl_coef), as_reference(reference, env.window), "k1")
    env.core.components = replace(env.core.components, kl=term)
    return env


def as_reference(reference: Any, window: int) -> Reference:
    """Return the log-probabilities of a reference policy.

    Args:
        reference: An ``LMPolicy``, the ``ReferencePolicy`` or ``ReferenceKL`` of an agent, a language model, its name,
            an object with ``log_probs``, or None for log pi_ref = 0: the penalty then is on the entropy.
        window: Longest text in tokens.

    Raises:
        TypeError: If it is none of these.
    """
    if reference is None:
        return _Uniform()
    if isinstance(reference, ReferenceKL):
        reference = reference.reference
    if isinstance(reference, ReferencePolicy):
        with reference.policy() as policy:
            model = policy.model if reference.copy is not None else _without_adapters(policy)
        return ReferenceLM(model, window)
    if isinstance(reference, BasePolicy):
        return ReferenceLM(reference.model, window)
    if isinstance(reference, str | PreTrainedModel):
        return ReferenceLM(load_lm(reference), window)
    if callable(getattr(reference, "log_probs", None)):
        known: Reference = reference
        return known
    raise TypeError(
        "reference must be a policy, the agent.kl.reference of an agent, a language model or its name, got "
        f"{type(reference).__name__}"
    )


class _Uniform:
    """A reference with log pi_ref = 0."""

    def log_probs(self, ids: npt.NDArray[np.int64], *_: Any, **__: Any) -> npt.NDArray[np.float64]:
        return np.zeros(len(ids))


def _without_adapters(policy: BasePolicy) -> PreTrainedModel:
    """Return a copy of a policy's model with its adapters removed; called while they are disabled."""
    frozen = policy.frozen_copy()
    for module in frozen.model.modules():
        if hasattr(module, "lora_A"):
            module.enable_adapters(False)  # type: ignore[operator]
    return frozen.model


class _RecordedUser:
    """Repeats the replies in ``info["turns"]`` of episodes, which are the slots."""

    def __init__(self, infos: Sequence[Mapping[str, Any]]) -> None:
        self.replies = [[turn["content"] for turn in info["turns"] if turn["role"] == "user"] for info in infos]
        self.outcomes = [info.get("end_reason") for info in infos]

    def __call__(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> list[Reply]:
        assert batch.slots is not None
        assert batch.replies is not None
        given = []
        for slot, before in zip(batch.slots.tolist(), batch.replies, strict=True):
            replies, turn = self.replies[slot], len(before)
            is_last = turn + 1 >= len(replies)
            # The reasons of the environment's own ends are found by itself.
            own = self.outcomes[slot] in {"max_turns", "max_new_tokens"}
            text = replies[turn] if turn < len(replies) else ""
            given.append(Reply(text, self.outcomes[slot] if is_last and not own else None))
        return given


def _start_of(episodes: Episodes, b: int) -> Any:
    """Return what is known of the start of an episode, None if nothing is."""
    starts = getattr(episodes, "starts", None)
    return None if starts is None else starts[b]


def _prompt_ids(episodes: Episodes, b: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the ids of an episode's prompt, and of the prefix of the completion that it started with."""
    start, end = int(episodes.prompt_lengths[b]), int(episodes.text_lengths[b])
    known, completion = _start_of(episodes, b), episodes.infos[b].get("completion_ids")
    if known is not None:
        first = start - known.prefix_length
    else:
        first = start if completion is None else min(start, end - len(completion))
    ids = episodes.ids[b].numpy()
    return ids[:first], ids[first:start]


def _start(env: CoreInterface, episodes: Episodes, b: int, sample: Sample) -> dict[str, Any]:
    """Return the reset options of an episode, whose sample is number b of the prompts."""
    ids, prefix = _prompt_ids(episodes, b)
    options: dict[str, Any] = {"prefix_ids": prefix.tolist()} if prefix.size else {}
    try:
        encoded = env.core.components.encoder(sample)
    except ValueError:
        encoded = np.zeros(0, dtype=np.int64)
    if np.array_equal(encoded, ids):
        return {"index": b, **options}
    if not sample.metadata and not sample.references and env.tokenizer.decode(ids.tolist()) == sample.prompt:
        return {"prompt_ids": ids.tolist(), **options}
    raise _mismatch(b, f"its prompt {sample.prompt!r:.60} has other token ids in this environment")


def _check_positions(env: CoreInterface, episodes: Episodes) -> None:
    """Raise a ValueError unless each action wrote a token."""
    if int(episodes.text_lengths.max()) > env.window or int(episodes.ids.max()) >= env.num_actions:
        length, largest = int(episodes.text_lengths.max()), int(episodes.ids.max())
        raise ValueError(
            f"the episodes have {length} tokens and ids up to {largest}, this environment a window of {env.window} and "
            f"{env.num_actions} tokens: they are of another environment"
        )
    steps = np.diff(episodes.positions.numpy(), axis=1) <= 0
    if (steps & episodes.mask.numpy()[:, 1:]).any():
        b = int((steps & episodes.mask.numpy()[:, 1:]).any(axis=1).argmax())
        raise _mismatch(b, "it has invalid actions that wrote no token, which are not recorded")


def _check_ends(core: Core, episodes: Episodes, rewards: npt.NDArray[np.float64]) -> None:
    """Raise a ValueError unless the replayed episodes are those given."""
    for b in range(len(episodes)):
        end = int(episodes.text_lengths[b])
        if core.running[b]:
            raise _mismatch(b, f"it does not end after its {int(episodes.num_steps[b])} actions in this environment")
        if core.lengths[b] != end or (core.ids[b, :end] != episodes.ids[b, :end].numpy()).any():
            raise _mismatch(b, "the same actions make another text in this environment, such as by a random user")
    components = core.components
    scorers = (components.scorer, *components.reward.scorers)
    if components.kl is not None or not all(one.deterministic and not observes(one) for one in scorers):
        return
    recorded = episodes.rewards.double().numpy().sum(axis=1)
    replayed = rewards.sum(axis=1)
    scored = episodes.scored
    far = scored & (np.abs(recorded - replayed) > 1e-4 * (1 + np.abs(recorded)))
    if far.any():
        b = int(far.argmax())
        raise _mismatch(
            b,
            f"its return was {recorded[b]:.4g} and is {replayed[b]:.4g} here, so scorer, reward or metadata differ",
        )


def _mismatch(b: int, reason: str) -> ValueError:
    return ValueError(f"episode {b} cannot be rebuilt: {reason}; give the environment that it was collected in")


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return combine_snapshots(
        lambda v: np.concatenate(v) if isinstance(v[0], np.ndarray) else [x for part in v for x in part], parts
    )
