"""Scorers learn exactly once from each episode that ends in the training environment."""

import asyncio
import copy
import json

import numpy as np
import pytest
import torch

import textgym
from fixtures import TOKENIZER, make_env, share_of_b, small_lm
from textgym import PromptsExhaustedError, TextGenEnv, TextGenVecEnv
from textgym.batch import TextBatch
from textgym.prompts import Curriculum, ListPrompts
from textgym.rewards import PerTurn, Potential, Redistributed
from textgym.scorers import (
    AgentTurns,
    Clip,
    Constrained,
    Gate,
    GroupPercentile,
    Novelty,
    RunningNormalization,
    Scorer,
    Scores,
    SelfBLEU,
    Sequential,
    as_reward_func,
    as_scorer,
    evaluate,
    score_batch,
)
from textgym.scorers.evaluation import get_states, set_states
from textgym_agents import LMPolicy, collect
from textgym_agents.decoding import MCTS, BeamSearch, BestOfN, MCTSConfig

A, B, EOS = 0, 1, 7
KEYWORDS = {"tokenizer": TOKENIZER, "prompts": ["a"], "max_new_tokens": 3, "max_prompt_tokens": 4}


class Length(Scorer):
    """Scores the length and records scored and observed texts."""

    def __init__(self):
        self.scored = []
        self.observed = []
        self.scores = []

    def __call__(self, batch):
        self.scored += batch.completions
        return np.array([float(len(text)) for text in batch.completions])

    def observe(self, batch, scores):
        self.observed += batch.completions
        self.scores += scores.total.tolist()


def single(scorer, **keywords):
    return TextGenEnv(scorer=scorer, **KEYWORDS | keywords)


def vector(scorer, num_envs=2, **keywords):
    settings = KEYWORDS | {"autoreset_mode": "SameStep"} | keywords
    return textgym.TextGenVectorEnv(num_envs, scorer=scorer, **settings)


def sb3(scorer, **keywords):
    return TextGenVecEnv(2, scorer=scorer, **KEYWORDS | keywords)


def run_actions(env, actions):
    """Take the actions in every sub-environment; reset a single environment at each episode end."""
    env.reset()
    for action in actions:
        if isinstance(env, TextGenEnv):
            *_, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        else:
            env.step(np.full(env.num_envs, action))
    return env


# Exactly once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [single, vector, sb3])
def test_every_episode_that_ends_is_observed_once_with_its_score(make):
    scorer = Length()
    env = run_actions(make(scorer), [A, EOS, B, B, B, A])
    copies = 1 if make is single else 2
    assert scorer.observed == ["a"] * copies + ["bbb"] * copies
    assert scorer.scores == [1.0] * copies + [3.0] * copies
    assert env.unwrapped.core.running.all()


def test_scoring_calls_of_a_reward_are_not_observed():
    for reward in (Redistributed("leave_one_out"), "potential", Potential(potential=len), "per_turn"):
        scorer = Length()
        run_actions(vector(scorer, reward=reward), [A, B, EOS])
        assert scorer.observed == ["ab", "ab"]
        assert reward == "per_turn" or isinstance(reward, Potential) or len(scorer.scored) > 2


def test_a_step_that_is_repeated_after_an_exception_is_observed_once():
    class Once:
        def __init__(self):
            self.left = 3

        def draw(self, rng):
            self.left -= 1
            if self.left < 0:
                raise PromptsExhaustedError("no prompt is left")
            return ListPrompts(["a"]).draw(rng)

    scorer, prompts = Length(), Once()
    env = vector(scorer, prompts=prompts)
    env.reset()
    with pytest.raises(PromptsExhaustedError):
        env.step(np.array([EOS, EOS]))
    assert len(scorer.scored) == 2
    assert scorer.observed == []
    prompts.left = 8
    env.step(np.array([EOS, EOS]))
    assert scorer.observed == ["", ""]


def test_a_reward_s_own_scorer_observes_too():
    scorer = Length()
    run_actions(vector(len, reward=PerTurn(scorer, weight=0.5)), [A, EOS])
    assert scorer.observed == ["a", "a"]
    scorer = Length()
    run_actions(vector(len, reward=Potential(potential=scorer)), [A, EOS])
    assert scorer.observed == ["a", "a"]


def test_a_reward_s_scorer_that_does_not_learn_is_not_called_at_episode_ends():
    class Counts(Scorer):
        calls = 0

        def __call__(self, batch):
            self.calls += len(batch)
            return np.zeros(len(batch))

    scorer = Counts()
    run_actions(vector(len, reward=Potential(potential=scorer)), [A])
    calls = scorer.calls
    run_actions(vector(len, reward=Potential(potential=scorer)), [A, EOS])
    assert scorer.calls == 2 * calls + 2  # the prompts of the next two episodes


@pytest.mark.parametrize(
    "learner", [RunningNormalization(len), GroupPercentile(len), Constrained(len, len, 0.5, episodes_per_update=1)]
)
@pytest.mark.parametrize(
    "outer", [lambda s: Gate(share_of_b, 0.5, s), lambda s: Sequential({"b": (s, 0.0), "c": (s, 0)})]
)
def test_a_learner_observes_where_it_was_not_called_or_failed(outer, learner):
    scorer = outer(copy.deepcopy(learner))
    env = run_actions(vector(scorer, num_envs=4), [A, EOS, A, EOS, B, EOS])
    assert env.core.running.all()
    broken = RunningNormalization(fails_for_c)
    run_actions(vector(outer(broken), on_scorer_error=0.0), [2, EOS, B, EOS])
    assert broken.count in (0, 2)


def fails_for_c(batch):
    if "c" in batch.completions:
        raise ValueError("c")
    return np.ones(len(batch))


class CallsAnother(Scorer):
    """A scorer of one method, with an inner scorer that learns."""

    def __init__(self, inner):
        self.scorers = (inner,)

    def __call__(self, batch):
        return self.scorers[0](batch)


def test_the_inner_scorer_of_a_scorer_with_only_call_observes():
    inner = RunningNormalization(len)
    run_actions(vector(CallsAnother(inner)), [A, EOS])
    assert (inner.count, inner.mean) == (2, 1.0)


def test_one_object_in_several_places_observes_each_episode_once():
    scorer = RunningNormalization(len)
    run_actions(vector(scorer, reward=Potential(potential=scorer)), [A, EOS])
    assert scorer.count == 2
    run_actions(vector({"a": (scorer, 1), "b": (Clip(scorer, 0, 1), 1)}), [A, EOS])
    assert scorer.count == 4


def test_a_replaced_score_is_not_observed():
    class Source(ListPrompts):
        observed = ()

        def observe(self, samples, scores):
            self.observed += tuple(scores.tolist())

    class Fails(Length):
        def __call__(self, batch):
            return fails_for_c(batch)

    scorer, source = Fails(), Source(["a"])
    env = vector(scorer, prompts=source, on_scorer_error=-1.0)
    env.reset()
    env.step(np.array([2, 2]))
    assert env.step(np.array([EOS, EOS]))[1].tolist() == [-1.0, -1.0]
    assert np.isnan(source.observed).tolist() == [True, True]
    assert np.isnan(scorer.scores).tolist() == [True, True]


class LearnsAndRaises(Length):
    """Learns once, and raises the second time."""

    def observe(self, batch, scores):
        super().observe(batch, scores)
        if len(self.observed) > 2:
            raise ValueError("full")


def test_an_exception_in_observe_leaves_the_step_taken_and_nothing_is_observed_twice():
    first = Length()
    env = vector({"first": (first, 1.0), "second": (LearnsAndRaises(), 1.0)})
    run_actions(env, [A, EOS, B])
    with pytest.raises(ValueError, match="full"):
        env.step(np.array([EOS, EOS]))
    assert env.core.steps.tolist() == [0, 0]
    env.step(np.array([A, A]))
    assert first.observed == ["a", "a", "b", "b"]


def test_turns_of_the_agent_alone_are_not_scored_again_for_a_scorer_that_does_not_learn():
    class Counts(Scorer):
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            return np.zeros(len(batch))

    bare, wrapped = Counts(), Counts()
    run_actions(vector(len, reward=Potential(potential=bare)), [A, EOS])
    run_actions(vector(len, reward=Potential(potential=AgentTurns(wrapped))), [A, EOS])
    assert wrapped.calls == bare.calls


def test_a_cancelled_task_is_not_a_scorer_error():
    def cancelled(completion):
        raise asyncio.CancelledError

    for scorer in (cancelled, CallsAnother(as_scorer(cancelled))):
        with pytest.raises(asyncio.CancelledError):
            evaluate(as_scorer(scorer), TextBatch.from_texts(["a"]), "invalid")


def test_states_of_another_scorer_are_rejected_and_change_nothing():
    scorer = as_scorer({"a": (RunningNormalization(len), 1.0), "b": (Novelty(n=1), 1.0)})
    before = get_states(scorer)
    with pytest.raises(ValueError, match="of 1 scorers, but 'weighted_sum' consists of 4"):
        set_states(scorer, [None])
    with pytest.raises(ValueError, match="a state for 'len', which has none"):
        set_states(scorer, [None, {"count": 1}, {}, {"texts": []}])
    good = {"count": 1, "mean": 2.0, "sum_of_squares": 0.0}
    with pytest.raises(KeyError):
        set_states(scorer, [None, good, None, {"wrong": 1}])
    assert get_states(scorer) == before


def test_the_scorer_of_a_trl_reward_function_observes():
    scorer = Novelty(n=1)
    reward = as_reward_func(scorer)
    assert reward(prompts=["p"], completions=["snow fell"]) == [1.0]
    assert reward(prompts=["p"], completions=["snow melts"]) == [0.5]


# Lookahead ---------------------------------------------------------------------------------------------------


def learners():
    return {
        "normalised": (RunningNormalization(share_of_b), 1.0),
        "ranked": (GroupPercentile(share_of_b), 1.0),
        "constrained": (Constrained(share_of_b, share_of_b, 0.5, episodes_per_update=1), 1.0),
        "novelty": (Novelty(n=1), 1.0),
        "repeated": (SelfBLEU(n=2), -1.0),
    }


def learning_env(**keywords):
    """An environment with five learning scorers, a curriculum and an adaptive KL coefficient."""
    prompts = Curriculum([ListPrompts(["a", "cab"]), ListPrompts(["dag"])], patience=2, demote_at=0.0, promote_at=0.01)
    kl = {"model": small_lm(), "kl_penalty": 0.1, "kl_penalty_target": 0.01, "kl_penalty_horizon": 10}
    return make_env(4, **{"prompts": prompts, "scorer": learners()} | kl | keywords)


def trained(env):
    return json.dumps(env.unwrapped.get_training_state())


def test_a_clone_leaves_no_trace():
    env = learning_env()
    env.reset(seed=0)
    before = trained(env)
    twin = env.unwrapped.clone()
    for action in (B, EOS, EOS, EOS):
        twin.step(np.full(4, action))
    assert trained(env) == before
    env.step(np.full(4, EOS))
    assert trained(env) != before


def test_a_clone_of_a_clone_leaves_no_trace():
    scorer = Length()
    env = vector(scorer)
    env.reset()
    env.clone().clone().step(np.array([EOS, EOS]))
    assert scorer.observed == []


@pytest.mark.parametrize(
    "decoder",
    [
        lambda policy, env: BestOfN(policy, env, 8),
        lambda policy, env: BeamSearch(policy, env, 4),
        lambda policy, env: MCTS(policy, env, MCTSConfig(num_simulations=8, top_k=4)),
    ],
    ids=["best of n", "beam", "mcts"],
)
def test_search_leaves_no_trace(decoder):
    env = learning_env()
    collect(env, decoder(LMPolicy(small_lm()), env), 4, seed=3, generator=torch.Generator().manual_seed(0))
    state = env.unwrapped.get_training_state()
    normalised = next(one for one in state["scorers"] if one is not None and "count" in one)
    assert normalised["count"] == 4
    assert state["prompts"] is not None


@pytest.mark.parametrize("ahead", [True, False])
def test_scores_do_not_depend_on_lookahead(ahead):
    env = learning_env()
    env.reset(seed=0)
    rewards = []
    for action in (B, A, EOS, B, EOS):
        if ahead:
            env.unwrapped.clone().step(np.full(4, EOS))
        rewards.append(env.step(np.full(4, action))[1].tolist())
    reference = learning_env()
    reference.reset(seed=0)
    assert rewards == [reference.step(np.full(4, action))[1].tolist() for action in (B, A, EOS, B, EOS)]


# A user's scorer with every hook ------------------------------------------------------------------------------


class Everything(Scorer):
    """Counts the letter b minus a learned mean, times a weight that depends on progress; fails for the text c."""

    name = "everything"
    score_range = (-10.0, 10.0)
    incremental = True
    deterministic = False
    components = ("letters", "inner")

    def __init__(self):
        self.scorers = (Length(),)
        self.mean = 0.0
        self.weight = 1.0

    def __call__(self, batch):
        return self.score_components(batch).checked_total()

    def score_components(self, batch):
        inner = score_batch(self.scorers[0], batch)
        letters = np.array([float(text.count("b")) for text in batch.completions])
        errors = {i: "no score for c" for i, text in enumerate(batch.completions) if text == "c"}
        total = self.weight * (letters - self.mean)
        return Scores(total, {"letters": letters, "inner": inner.total}, errors, None, (inner,))

    def observe(self, batch, scores):
        super().observe(batch, scores)
        self.mean += 1.0

    def get_state(self):
        return {"mean": self.mean}

    def set_state(self, state):
        self.mean = state["mean"]

    def set_progress(self, progress):
        super().set_progress(progress)
        self.weight = 1.0 - progress

    def begin(self, batch):
        return [text.count("b") for text in batch.completions]

    def advance(self, states, batch):
        return [count + piece.count("b") for count, piece in zip(states, batch.last_pieces, strict=True)]

    def value(self, states, batch):
        return self.weight * (np.array(states, dtype=np.float64) - self.mean)


@pytest.mark.parametrize("make", [single, vector, sb3])
def test_every_hook_of_a_user_s_scorer_works_in_every_interface(make):
    scorer = Everything()
    env = make(scorer, on_scorer_error="invalid")
    assert env.reward_names == ("letters", "inner")
    run_actions(env, [B, EOS])
    assert (scorer.mean, scorer.scorers[0].observed) == (1.0, ["b"] * (1 if make is single else 2))
    state = env.get_training_state()
    assert state["scorers"][:2] == [{"mean": 1.0}, None]
    env.set_training_state(state | {"scorers": [{"mean": 5.0}, None]})
    assert scorer.mean == 5.0
    env.set_progress(0.25)
    assert scorer.weight == 0.75
    run_actions(make(scorer, reward="per_token"), [B, B])
    with pytest.raises(textgym.ScorerError, match="no score for c"):
        run_actions(make(scorer), [2, EOS])
    assert scorer.mean == 5.0
