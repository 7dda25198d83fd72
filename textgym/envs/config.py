"""The keywords of an environment, and the components built of them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from textgym.actions import Actions, as_actions
from textgym.constraints import Constraint, as_constraint
from textgym.endings import as_endings
from textgym.envs.components import EnvComponents, KLTerm
from textgym.envs.step_result import FINAL_INFO, FinalInfo, ScoreBounds
from textgym.envs.user_turns import Dialogue
from textgym.errors import unknown_keyword, unknown_name
from textgym.observations import Observation, as_observation
from textgym.prompts import PromptEncoder, PromptSource, as_prompts, builtin_prompts
from textgym.registration import TASK_KEYWORDS, expanded
from textgym.rewards import KL_ESTIMATORS, AdaptiveCoefficient, Reference, Reward, as_reward
from textgym.scorers import Scorer, as_scorer
from textgym.tokenizers import Tokenizer, as_tokenizer
from textgym.users import as_user

__all__ = ["TextGenConfig"]


@dataclass(frozen=True, kw_only=True)
class TextGenConfig:
    """Keywords of an environment. With strings, numbers and lists of them, the ``EnvSpec`` is serialisable."""

    model: Any = None
    """Language model that gives tokenizer and vocabulary: ``"tiny"`` (the default without a tokenizer) or
    ``"tiny-early"``, which are embedded; a Hugging Face name, a local folder, a GGUF file, or a loaded model together
    with ``tokenizer``. Weights are loaded only for the KL term."""
    tokenizer: Any = None
    """Tokenizer, by default the model's: ``"char"``, ``"byte"``, a folder, a Hugging Face tokenizer, or any
    ``textgym.tokenizers.Tokenizer``."""
    prompts: Any = None
    """Prompts, by default the built-in story openings that fit: a list of strings, samples or mappings, a text, JSONL
    or CSV file (with a column ``prompt``; also ``.gz``), a ``datasets.Dataset``, an iterator, a function
    ``f(rng) -> str``, ``"openings:train"`` or ``"openings:eval"``, a reasoning-gym data set, or a ``PromptSource``."""
    prompt_truncation: Literal["left", "right"] | None = None
    """The end at which prompts longer than ``max_prompt_tokens`` are cut. ``None`` raises instead."""
    scorer: str | Mapping[str, Any] | Scorer | Callable[..., Any] = "sentiment"
    """Scorer of the completions: a name, ``{name: weight}``, a plain function of the completion, or a ``Scorer``."""
    reward: str | Reward = "terminal"
    """How scores become step rewards: ``"terminal"``, ``"per_token"``, ``"per_turn"``, ``"potential"``,
    ``"redistributed"``, a function ``f(score, batch, final_scores, state)`` or a ``Reward``."""
    kl_penalty: float = 0.0
    """Coefficient of the per-token KL to ``reference`` that is subtracted from the reward, in reward per nat. The agent
    passes its log-probabilities to ``set_log_probs`` before each step, as the agents of textgym do, and stock SB3
    agents with the callback ``ReportLogProbs``; without them the cross-entropy is subtracted, which is the KL plus the
    policy's entropy. Where it is above 0, agents with a ``kl_coef`` of their own take 0 by default."""
    kl_penalty_estimator: Literal["k1", "k3"] = "k1"
    """KL estimator from the chosen token; see ``textgym.rewards.kl_penalty``."""
    kl_penalty_target: float | None = None
    """KL per token, in nats, towards which ``kl_penalty`` is adapted, by at most a fifth in ``kl_penalty_horizon``
    tokens. None keeps ``kl_penalty`` fixed."""
    kl_penalty_horizon: int = 10_000
    """Horizon of the adaptation of ``kl_penalty``, in tokens of finished episodes."""
    suggested_kl_coef: float | None = None
    """Coefficient of the KL penalty for agents whose own ``kl_coef`` is not set; the environment does not apply it.
    Tasks set it: 0 where the score verifies an answer, more where texts that nobody would write score too."""
    reference: Any = None
    """Language model of the KL term, by default ``model``: a name, a loaded model, which is copied, or a
    ``textgym.rewards.Reference``. Where actions are masked, it is renormalised over the valid tokens, as the policy."""
    max_new_tokens: int = 32
    """Budget of an episode, in actions of the agent, a token each; a prefix given at reset counts too."""
    max_prompt_tokens: int = 32
    """Room for the prompt, in tokens. The window L is the sum of both and of the room for a user's replies."""
    user: Any = None
    """Simulated user: ``f(messages) -> text``, which returns None to end the dialogue, or a ``textgym.users.User``.
    The agent's EOS then ends its turn instead of the episode, and the user replies."""
    max_turns: int = 8
    """Turns of the agent in a dialogue; the end of the last one terminates the episode."""
    max_reply_tokens: int = 48
    """Room for each reply of the user, in tokens, formatted by ``reply_format``."""
    reply_format: str = "\nUser: {reply}\nAssistant:"
    """Text written for each reply; after the last one, the part behind ``{reply}`` is left out."""
    group_size: int = 1
    """Number of successive episodes that share one drawn prompt, whichever sub-environments they start in. Resetting
    all sub-environments begins a new group. Episodes whose prompt a reset gives are groups of their own, one per
    prompt."""
    stop: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = ()
    """Conditions that end a text besides EOS: strings, which stay part of the completion, ``f(completion) -> bool``,
    ``f(batch) -> (B,) bool``; ``textgym.endings.SentenceEnd`` ends it at the end of a sentence."""
    time_limit: Literal["truncated", "terminated"] = "terminated"
    """Whether the end of the budget terminates or truncates the episode. By default the budget is part of the task, and
    the score of the cut text is the whole return. With ``"truncated"`` an agent that bootstraps adds the value of the
    last state to that score: meant for rewards that would have gone on, such as ``reward="per_token"``."""
    actions: str | Actions = "vocabulary"
    """Action space: ``"vocabulary"``, ``Subset([...])``, or a ``textgym.actions.Actions``."""
    constraints: Constraint | Sequence[Constraint | str] | str = ()
    """Constraints on the next token. A token is valid if all of them allow it."""
    observation: str | Observation = "tokens"
    """Observation: ``"tokens"``, ``"dict"``, or a ``textgym.observations.Observation``."""
    on_invalid_action: Literal["raise", "terminate", "ignore"] = "raise"
    """Effect of a masked action: raise ``InvalidActionError``; end the episode without writing the token; or write
    nothing, at the cost of one action of the budget."""
    invalid_action_penalty: float = 1.0
    """Subtracted from the reward of a masked action under ``"terminate"`` and ``"ignore"``."""
    on_scorer_error: str | float = "raise"
    """Effect of a failing scorer: ``"raise"`` ``ScorerError``, with the step undone; ``"invalid"``, reward 0 and score
    NaN; or a number that replaces the score. The latter two set ``info["scorer_error"]``."""
    score_bounds: ScoreBounds | None = None
    """The scores that ``info["score_normalised"]`` maps to 0 and 1, such as those of the untrained model and of the
    optimum: a pair, or pairs by the samples' metadata ``level``."""
    step_info: Sequence[str] = ()
    """Further keys of each step's ``info``: ``"action_mask"``, (num_actions,) int8 for ``Discrete.sample(mask)``, and
    ``"reward_vector"``, (K,) float64, the final scores of the scorer's components before their weights, 0 before the
    end. The K names are ``env.unwrapped.reward_names``."""
    final_info: FinalInfo = "full"
    """Keys of the last step's ``info`` that describe the episode: ``"full"``, texts included; ``"numbers"``, only NumPy
    numbers and arrays of fixed shape, for libraries that store ``info`` in tensors; or ``"none"``. With the latter two,
    ``scorer_error`` is True instead of a text. The agents of textgym need ``"full"``."""

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any]) -> "TextGenConfig":
        """Build from the keywords of an interface.

        Besides the fields, these are ``id``, a registered id; ``task`` with its own keywords (see
        ``textgym.tasks.task_keywords``); and ``max_episode_steps``, Gymnasium's name of ``max_new_tokens``. The
        keywords of an id or task are defaults.

        Raises:
            TypeError: For an unknown keyword; it lists the known ones and suggests the nearest.
            ValueError: If ``max_episode_steps`` and ``max_new_tokens`` differ, or an id or task is unknown.
        """
        kwargs = expanded(kwargs)
        names = [f.name for f in fields(cls)]
        for name in kwargs:
            if name in TASK_KEYWORDS:
                raise TypeError(f"{name}=... belongs to a task, and none is given: add task=..., such as task='qa'")
            if name not in names:
                raise unknown_keyword(name, [*names, "id", "task", "max_episode_steps"])
        return cls(**kwargs)

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_prompt_tokens", "group_size", "max_turns", "max_reply_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if "{reply}" not in self.reply_format:
            raise ValueError(f"reply_format must contain {{reply}}, got {self.reply_format!r}")
        _choose("time_limit", self.time_limit, ("truncated", "terminated"))
        _choose("on_invalid_action", self.on_invalid_action, ("raise", "terminate", "ignore"))
        if isinstance(self.on_scorer_error, str):
            _choose("on_scorer_error", self.on_scorer_error, ("raise", "invalid"))
        elif not _is_finite(self.on_scorer_error):
            raise ValueError(
                f"on_scorer_error must be 'raise', 'invalid' or a finite number, got {self.on_scorer_error!r}"
            )
        if isinstance(self.step_info, str):
            raise TypeError(f"step_info must be a list of names, got one name; write [{self.step_info!r}]")
        for name in self.step_info:
            _choose("step_info", name, ("action_mask", "reward_vector"))
        _choose("final_info", self.final_info, FINAL_INFO)
        for name in ("kl_penalty", "suggested_kl_coef"):
            coef = getattr(self, name)
            is_open = coef is None and name == "suggested_kl_coef"
            if not is_open and (not _is_finite(coef) or coef < 0):
                raise ValueError(f"{name} must be a finite number of at least 0, got {coef!r}")
        _choose("kl_penalty_estimator", self.kl_penalty_estimator, KL_ESTIMATORS)
        if self.kl_penalty_target is not None and self.kl_penalty == 0:
            raise ValueError("kl_penalty must be above 0 with kl_penalty_target=..., got 0")
        self._kl_coefficient()  # raises if target or horizon are invalid
        if not _is_finite(self.invalid_action_penalty):
            raise ValueError(f"invalid_action_penalty must be a finite number, got {self.invalid_action_penalty!r}")

    def build(self) -> EnvComponents:
        """Resolve names into objects and check that they fit together.

        Raises:
            ValueError: If a name is unknown, a source is empty, a prompt leaves no room, or the vocabulary does
                not fit the model.
            TypeError: If an object does not fit its contract.
        """
        tokenizer = self._build_tokenizer()
        encoder = PromptEncoder(tokenizer, self.max_prompt_tokens, self.prompt_truncation)
        prompts: PromptSource = (
            encoder.select_valid(builtin_prompts()) if self.prompts is None else as_prompts(self.prompts)
        )
        encoder.check(prompts)
        scorer = as_scorer(self.scorer)
        reward = as_reward(self.reward, scorer)
        kl = None
        if self.kl_penalty > 0:
            kl = KLTerm(self._kl_coefficient(), self._build_reference(), self.kl_penalty_estimator)
        return EnvComponents(
            tokenizer=tokenizer,
            prompts=prompts,
            encoder=encoder,
            scorer=scorer,
            on_scorer_error=self.on_scorer_error,
            reward=reward,
            endings=as_endings(self.stop),
            constraint=None if _is_empty(self.constraints) else as_constraint(self.constraints),
            actions=as_actions(self.actions).bind(tokenizer),
            observation=as_observation(self.observation),
            kl=kl,
            max_new_tokens=self.max_new_tokens,
            window=self.window,
            group_size=self.group_size,
            budget_terminates=self.time_limit == "terminated",
            on_invalid_action=self.on_invalid_action,
            invalid_action_penalty=self.invalid_action_penalty,
            reports_reward_vector="reward_vector" in self.step_info,
            reports_action_mask="action_mask" in self.step_info,
            dialogue=None if self.user is None else self._build_dialogue(tokenizer, reward),
            score_bounds=self.score_bounds,
        )

    @property
    def window(self) -> int:
        """L, the length of the token window."""
        replies = 0 if self.user is None else self.max_turns * self.max_reply_tokens
        return self.max_prompt_tokens + self.max_new_tokens + replies

    @property
    def _model(self) -> Any:
        """``model``, or ``"tiny"`` where neither it nor a tokenizer is given."""
        return "tiny" if self.model is None and self.tokenizer is None else self.model

    def _build_tokenizer(self) -> Tokenizer:
        model = self._model
        if self.tokenizer is None and not isinstance(model, str | Path):
            raise TypeError(f"a loaded model needs tokenizer=... too, got only {type(model).__name__}")
        if self.tokenizer is None:
            try:
                return as_tokenizer(model)
            except ValueError as error:
                raise ValueError(f"model={model!r} gives no tokenizer: {error}") from error
        return as_tokenizer(self.tokenizer, vocab_size=None if model is None else logits_width(model))

    def _build_dialogue(self, tokenizer: Tokenizer, reward: Reward) -> Dialogue:
        if tokenizer.eos_token_id is None:
            raise ValueError("with a user the agent's EOS ends its turn, but the tokenizer has no EOS")
        if reward.per_token:
            raise ValueError(
                f"{type(reward).__name__} gives per-token rewards; user replies have none, so it cannot be combined "
                "with user=...: take reward='per_turn', 'terminal' or 'potential'"
            )
        return Dialogue(as_user(self.user), self.max_turns, self.max_reply_tokens, self.reply_format)

    def _kl_coefficient(self) -> AdaptiveCoefficient:
        return AdaptiveCoefficient(self.kl_penalty, self.kl_penalty_target, self.kl_penalty_horizon)

    def _build_reference(self) -> Reference:
        reference = self._model if self.reference is None else self.reference
        if reference is None:
            raise ValueError("kl_penalty > 0 needs a language model: give model=... or reference=...")
        if callable(getattr(reference, "log_probs", None)):
            built: Reference = reference
            return built
        from textgym.lm import ReferenceLM, load_lm  # imports torch

        if not isinstance(reference, str | Path) and not hasattr(reference, "get_output_embeddings"):
            raise TypeError(
                f"reference must be a model's name, a loaded model or an object with log_probs, got {reference!r}"
            )
        # A copy, since a loaded model may be the one that is being trained.
        model = load_lm(reference) if isinstance(reference, str | Path) else copy.deepcopy(reference)
        return ReferenceLM(model, window=self.window)


def logits_width(model: Any) -> int:
    """Return V of a model given by object, folder or name, without loading its weights."""
    if hasattr(model, "config"):
        return int(model.config.get_text_config().vocab_size)
    return as_tokenizer(model).vocab_size


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _is_empty(constraints: object) -> bool:
    """Whether no constraint is given: an empty tuple, or the list that JSON makes of it."""
    return isinstance(constraints, Sequence) and len(constraints) == 0


def _choose(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise unknown_name(name, value, choices)
