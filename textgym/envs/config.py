"""The keywords that all three interfaces share, and how they become components."""

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
from textgym.envs.step import FINAL_INFO, FinalInfo, ScoreBounds
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

_LEAST = {"max_new_tokens": 1, "max_prompt_tokens": 1, "group_size": 1, "max_turns": 1, "max_reply_tokens": 1}


@dataclass(frozen=True, kw_only=True)
class TextGenConfig:
    """What an environment is made of. Strings, numbers and lists of them keep the ``EnvSpec`` serialisable."""

    model: Any = None
    """Language model whose tokenizer and vocabulary are used: ``"tiny"`` (embedded; the default where no tokenizer
    is given), a Hugging Face name, a local folder, a GGUF file, or a loaded model together with ``tokenizer``.
    The network itself is loaded only where something needs it: the KL term."""
    tokenizer: Any = None
    """Tokenizer, by default the model's: ``"char"``, ``"byte"``, a folder, a Hugging Face tokenizer, any object of
    the contract ``textgym.tokenizers.Tokenizer``."""
    prompts: Any = None
    """Where episodes start, by default those of the built-in story openings that fit: a list of strings, samples or
    mappings, a text, JSONL or CSV file (whose column ``prompt`` it is), a ``datasets.Dataset``, an iterator, a function
    ``f(rng) -> str``, or a ``PromptSource``."""
    prompt_truncation: Literal["left", "right"] | None = None
    """Which end of a prompt longer than ``max_prompt_tokens`` is cut. ``None`` raises instead."""
    scorer: str | Mapping[str, Any] | Scorer | Callable[..., Any] = "sentiment"
    """What a text is worth: a name, ``{name: weight}``, a plain function of the completion, or a ``Scorer``."""
    reward: str | Reward = "terminal"
    """How scores become step rewards: ``"terminal"``, ``"per_token"``, ``"per_turn"``, ``"potential"``,
    ``"redistributed"`` or a ``Reward``."""
    kl_penalty: float = 0.0
    """Coefficient of the per-token KL to ``reference`` that is subtracted from the reward, in reward per nat. The agent
    has to give its log-probabilities to ``set_log_probs`` before each step, as ours do; of one that does not, such as a
    stock SB3 agent, the cross-entropy is subtracted, which is the KL plus the policy's entropy. For agents with a
    ``kl_coef`` of their own leave it at 0."""
    kl_penalty_estimator: Literal["k1", "k3"] = "k1"
    """The estimate of the KL from the chosen token; see ``textgym.rewards.kl_penalty``."""
    kl_penalty_target: float | None = None
    """KL per token, in nats, to which ``kl_penalty`` is steered, by at most a fifth in ``kl_penalty_horizon`` tokens.
    None keeps ``kl_penalty`` as it is."""
    kl_penalty_horizon: int = 10_000
    """How slowly ``kl_penalty`` moves, in tokens of finished episodes."""
    reference: Any = None
    """Language model of the KL term, by default ``model``; a name, a loaded model, which is copied as it is now, or a
    ``textgym.rewards.Reference``. Where actions are masked, it is renormalised over the legal tokens, as the policy."""
    max_new_tokens: int = 32
    """Budget of an episode, in tokens that the agent writes."""
    max_prompt_tokens: int = 32
    """Room for the prompt, in tokens. The window L is the sum of both, and of the room for a user's replies."""
    user: Any = None
    """Who answers when the agent ends a turn, which its EOS then does instead of ending the episode:
    ``f(messages) -> text``, with None as the answer that ends the dialogue, or a ``textgym.users.User``."""
    max_turns: int = 8
    """How many turns the agent has, where there is a user; the last one's end terminates the episode."""
    max_reply_tokens: int = 32
    """Room for each reply of the user, in tokens, with what ``reply_format`` adds to it."""
    reply_format: str = "\nUser: {reply}\nAssistant:"
    """How a reply is written into the text; after the last reply, what stands behind ``{reply}`` is left out."""
    group_size: int = 1
    """How many successive episodes share one drawn prompt, whichever slots they start in. Resetting all slots of a
    vector environment begins a new group. Episodes to which a reset gives the prompt are groups of their own, one per
    prompt."""
    stop: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = ()
    """What ends a text besides EOS: strings, which stay part of the completion, ``f(completion) -> bool``,
    ``f(batch) -> (B,) bool``."""
    time_limit: Literal["truncated", "terminated"] = "terminated"
    """What the end of the budget counts as. The budget is part of the task and the cut text is given its score: a
    termination. With ``"truncated"`` an agent that bootstraps adds the value of the last state on top of that score:
    the choice for rewards that would have gone on, such as those of ``reward="per_token"``."""
    actions: str | Actions = "vocabulary"
    """What an action means: ``"vocabulary"``, ``Subset([...])``, or an object of the contract."""
    constraints: Constraint | Sequence[Constraint | str] | str = ()
    """Which tokens are legal now: constraints, all of which must agree."""
    observation: str | Observation = "tokens"
    """What the agent sees: ``"tokens"``, ``"dict"``, or an object of the contract."""
    on_invalid_action: Literal["raise", "terminate", "ignore"] = "raise"
    """What a masked action does: raise ``InvalidActionError``; end the episode without writing the token; or write
    nothing and go on, one action of the budget spent."""
    invalid_action_penalty: float = 1.0
    """What a masked action costs under ``"terminate"`` and ``"ignore"``, in reward."""
    on_scorer_error: str | float = "raise"
    """What a failing scorer does: ``"raise"`` ``ScorerError``, the step undone; ``"invalid"``, reward 0, score NaN and
    ``info["scorer_error"]``; or a number, the score instead, and ``info["scorer_error"]``."""
    score_bounds: ScoreBounds | None = None
    """The scores that ``info["score_normalised"]`` is to call 0 and 1, such as those of the untrained model and of the
    optimum: a pair, or pairs by the samples' metadata ``level``."""
    step_info: Sequence[str] = ()
    """What each step's ``info`` holds besides the last one's: ``"action_mask"``, (num_actions,) int8 as
    ``Discrete.sample(mask)`` takes it, and ``"reward_vector"``, (K,) float64, the final scores of the scorer's parts
    before their weights, 0 before the end. The K names are ``env.unwrapped.reward_names``."""

    final_info: FinalInfo = "full"
    """What the last step's ``info`` holds of an episode: ``"full"``, texts included; ``"numbers"``, only NumPy numbers
    and arrays of fixed shape, for libraries that store ``info`` in tensors; or ``"none"``. With both,
    ``scorer_error`` is True instead of a text; what ``step_info`` asks for is there in any case. Our agents need
    ``"full"``."""

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any]) -> "TextGenConfig":
        """Build from an interface's keywords.

        Besides the fields: ``id``, a registered id, and ``task``, whose keywords are the defaults and whose own are
        known too (see ``textgym.tasks.task_keywords``); ``max_episode_steps``, Gymnasium's name of ``max_new_tokens``.

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
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if "{reply}" not in self.reply_format:
            raise ValueError(f"reply_format must hold {{reply}}, got {self.reply_format!r}")
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
        if not _is_finite(self.kl_penalty) or self.kl_penalty < 0:
            raise ValueError(f"kl_penalty must be a finite number of at least 0, got {self.kl_penalty!r}")
        _choose("kl_penalty_estimator", self.kl_penalty_estimator, KL_ESTIMATORS)
        self._kl_coefficient()  # raises where they do not fit together
        if not _is_finite(self.invalid_action_penalty):
            raise ValueError(f"invalid_action_penalty must be a finite number, got {self.invalid_action_penalty!r}")

    def build(self) -> EnvComponents:
        """Resolve names into objects.

        Raises:
            ValueError: If a name is unknown, a source is empty, a prompt leaves no room, or the vocabulary does
                not fit the model.
            TypeError: If an object does not fit its contract.
        """
        tokenizer = self._build_tokenizer()
        encoder = PromptEncoder(tokenizer, self.max_prompt_tokens, self.prompt_truncation)
        prompts: PromptSource = encoder.fitting(builtin_prompts()) if self.prompts is None else as_prompts(self.prompts)
        encoder.check(prompts)
        scorer = as_scorer(self.scorer)
        reward = as_reward(self.reward, scorer)
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
            kl=self._build_kl_term() if self.kl_penalty > 0 else None,
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
        """L, in tokens."""
        replies = 0 if self.user is None else self.max_turns * self.max_reply_tokens
        return self.max_prompt_tokens + self.max_new_tokens + replies

    @property
    def model_or_default(self) -> Any:
        """``model``, or ``"tiny"`` where neither it nor a tokenizer is given."""
        return "tiny" if self.model is None and self.tokenizer is None else self.model

    def _build_tokenizer(self) -> Tokenizer:
        model = self.model_or_default
        if self.tokenizer is None and not isinstance(model, str | Path):
            raise TypeError(f"a loaded model needs tokenizer=... beside it, got only {type(model).__name__}")
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

    def _build_kl_term(self) -> KLTerm:
        coefficient = self._kl_coefficient()
        return KLTerm(coefficient, self._build_reference(), self.kl_penalty_estimator)

    def _kl_coefficient(self) -> AdaptiveCoefficient:
        return AdaptiveCoefficient(self.kl_penalty, self.kl_penalty_target, self.kl_penalty_horizon)

    def _build_reference(self) -> Reference:
        reference = self.model_or_default if self.reference is None else self.reference
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
        # A loaded model may be the one that is being trained: the reference is what it is now.
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
    """Whether no constraint is given; an ``EnvSpec`` that went through JSON has a list for the empty tuple."""
    return isinstance(constraints, Sequence) and len(constraints) == 0


def _choose(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise unknown_name(name, value, choices)
