"""A prompt source, a reward and a scorer of your own: every hook is called, without special cases in the core."""

import ast
import importlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import textgym
from textgym import TextGenEnv, TextGenVecEnv, TextGenVectorEnv
from textgym.envs.interface import select_slots
from textgym.prompts import PromptSource, Sample, as_prompts
from textgym.rewards import Potential, Reward, as_reward
from textgym.scorers import Scorer
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer
from textgym_agents.decoding.base import Simulation

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
INTERFACES = ["single", "SameStep", "NextStep", "Disabled", "sb3"]


class Counting(Scorer):
    """The length of the text, minus the mean length of the texts so far."""

    def __init__(self):
        self.total, self.count, self.progress = 0.0, 0, 0.0

    def __call__(self, batch):
        return [len(text) - self.total / max(self.count, 1) for text in batch.completions]

    def observe(self, batch, scores):
        self.total += sum(map(len, batch.completions))
        self.count += len(batch)

    def get_state(self):
        return {"total": self.total, "count": self.count}

    def set_state(self, state):
        self.total, self.count = state["total"], state["count"]

    def set_progress(self, progress):
        self.progress = progress


class Harder(PromptSource):
    """Prompts that grow with every episode that ends."""

    def __init__(self):
        self.size = 1

    def draw(self, rng):
        return Sample("abc"[rng.integers(3)] * self.size)

    def observe(self, samples, scores):
        assert len(samples) == len(scores)
        self.size = min(self.size + len(samples), 20)

    def get_state(self):
        return {"size": self.size}

    def set_state(self, state):
        self.size = state["size"]


class Halves(Reward):
    """Half of the score at the end, shares by token afterwards, and a bonus from a scorer of its own."""

    per_token = True

    def __init__(self):
        self.scorers = (Counting(),)

    def start(self, score, batch):
        return np.arange(len(batch), dtype=np.float64)

    def __call__(self, score, batch, final_scores, state):
        bonus = score(batch, self.scorers[0])
        return final_scores / 2 + np.where(batch.done, 0.01 * bonus, 0.0), state + 1

    def on_episode_end(self, score, texts, final_scores):
        return [np.full(n, s / n) for n, s in zip(texts.num_new_tokens.tolist(), final_scores.tolist(), strict=True)]


def make(interface, **keywords):
    own = {"prompts": Harder(), "reward": Halves(), "scorer": Counting()}
    keywords = {"tokenizer": "char", "max_new_tokens": 6} | own | keywords
    if interface == "single":
        return TextGenEnv(**keywords)
    if interface == "sb3":
        pytest.importorskip("stable_baselines3")
        return TextGenVecEnv(3, **keywords)
    return TextGenVectorEnv(3, autoreset_mode=interface, **keywords)


def start(env):
    if isinstance(env, TextGenVecEnv):
        env.seed(0)
        env.reset()
    else:
        env.reset(seed=0)


def play(env, num_steps=10):
    """Play, and return everything that was returned."""
    outcomes = []
    for step in range(num_steps):
        actions = np.array([[3, EOS, 4], [EOS, 5, 6], [7, 8, 9]][step % 3])
        outcome = env.step(actions[0] if isinstance(env, TextGenEnv) else actions)
        outcomes.append(outcome)
        if isinstance(env, TextGenEnv) and (outcome[2] or outcome[3]):
            outcomes.append(env.reset())
        elif isinstance(env, TextGenVectorEnv) and env.autoreset_mode.value == "Disabled":
            ended = outcome[2] | outcome[3]
            if ended.any():
                outcomes.append(env.reset(options={"reset_mask": ended}))
    return outcomes


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_source_a_reward_and_a_scorer_from_outside_observe_every_episode_that_ends(interface):
    env = make(interface)
    start(env)
    play(env, 12)
    components = env.core.components
    num_ended = components.scorer.count
    assert num_ended > 3
    assert components.reward.scorers[0].count == num_ended
    assert components.prompts.size == min(1 + num_ended, 20)
    env.set_progress(0.5)
    assert (components.scorer.progress, components.reward.scorers[0].progress) == (0.5, 0.5)


@pytest.mark.parametrize("interface", INTERFACES)
def test_their_token_rewards_are_in_the_last_info(interface):
    env = make(interface)
    start(env)
    for outcome in play(env, 3):
        infos = outcome[-1]
        if interface == "sb3":
            ended = [info for info in infos if "token_rewards" in info]
            scored = [(info["token_rewards"], info["score"]) for info in ended]
        elif interface == "single":
            scored = [(infos["token_rewards"], infos["score"])] if "token_rewards" in infos else []
        else:
            final = infos.get("final_info", infos)
            slots = np.flatnonzero(final.get("_token_rewards", []))
            scored = [(final["token_rewards"][slot], final["score"][slot]) for slot in slots]
        for rewards, score in scored:
            assert sum(rewards) == pytest.approx(score)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("copied", ["snapshot", "pickle", "training state"])
def test_snapshots_pickles_and_training_states_go_on_as_the_original(interface, copied):
    env = make(interface)
    start(env)
    play(env, 7)
    other = make(interface)
    if copied == "pickle":
        other = pickle.loads(pickle.dumps(env))
    else:
        other.set_training_state(json.loads(json.dumps(env.get_training_state())))
        other.set_state(env.get_state())
    assert other.get_training_state() == env.get_training_state()
    check_same(play(env), play(other), copied)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_clone_has_prompts_of_its_own_and_leaves_no_trace_in_the_original(interface):
    env = make(interface)
    start(env)
    play(env, 5)
    before = env.get_training_state()
    other = env.clone()
    play(other, 9)
    assert env.get_training_state() == before
    assert other.get_training_state()["prompts"] != before["prompts"]


def test_plain_objects_with_the_one_method_are_accepted():
    class Draws:
        def draw(self, rng):
            return "Hi "

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return ["Ho ", "Hu "][index]

    def paid_at_once(score, batch, final_scores, state):
        return score(batch), state

    env = TextGenEnv(tokenizer="char", prompts=Draws(), scorer=len, reward=paid_at_once)
    assert CHAR.decode(env.reset(seed=0)[0][:3]) == "Hi "
    assert [env.step(3)[1] for _ in range(3)] == [1.0, 2.0, 3.0]
    assert CHAR.decode(env.reset(options={"index": 1})[0][:3]) == "Hu "


def test_plain_objects_with_hooks_that_would_not_be_called_are_refused():
    class Observes:
        def draw(self, rng):
            return "a"

        def observe(self, samples, scores):
            pass

    class Starts:
        def start(self, score, batch):
            return np.ones(len(batch))

        def __call__(self, score, batch, final_scores, state):
            return final_scores, state

    with pytest.raises(TypeError, match=r"Observes has a method observe: inherit from textgym\.prompts\.PromptSource"):
        as_prompts(Observes())
    with pytest.raises(TypeError, match=r"Starts with start: inherit from textgym\.rewards\.Reward"):
        as_reward(Starts())


def test_token_rewards_of_the_wrong_length_are_an_error_and_the_step_is_undone():
    class Wrong(Halves):
        def on_episode_end(self, score, texts, final_scores):
            return [np.zeros(7) for _ in final_scores]

    env = make("single", reward=Wrong())
    start(env)
    before = env.get_state()
    with pytest.raises(ValueError, match=r"Wrong\.on_episode_end returned \[7\] rewards for texts of \[1\] tokens"):
        env.step(EOS)
    check_same(before, env.get_state(), "state")


def test_the_state_of_a_scorer_inside_a_reward_is_in_the_training_state():
    env = make("single", reward=Potential(potential=Counting()))
    start(env)
    play(env)
    saved = json.loads(json.dumps(env.get_training_state()))
    assert saved["reward_scorers"][0][0]["count"] > 2
    fresh = make("single", reward=Potential(potential=Counting()))
    fresh.set_training_state(saved)
    assert fresh.get_training_state()["reward_scorers"] == saved["reward_scorers"]


class Constant(Reward):
    """Returns the arrays given to the constructor."""

    def __init__(self, rewards, state):
        self.rewards, self.state = rewards, state

    def __call__(self, score, batch, final_scores, state):
        return self.rewards, self.state


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            Constant(np.zeros((1, 1)), np.zeros(1)),
            r"Constant returned rewards of shape \(1, 1\) and a state of shape \(1,\)",
        ),
        (Constant(np.zeros(1), np.zeros(2)), r"a state of shape \(2,\) for 1 episodes, expected \(1,\) for both"),
        (Constant(np.array([np.nan]), np.zeros(1)), r"Constant returned a reward of nan, expected finite numbers"),
        (Constant(np.array([-np.inf]), np.zeros(1)), r"Constant returned a reward of -inf, expected finite numbers"),
    ],
)
def test_what_a_reward_returns_is_checked_and_the_step_undone(reward, message):
    env = make("single", reward=reward)
    start(env)
    before = env.get_state()
    with pytest.raises(ValueError, match=message):
        env.step(0)
    check_same(before, env.get_state(), "state")


def test_a_reward_may_begin_with_integers_and_go_on_with_fractions():
    class Grows(Reward):
        def start(self, score, batch):
            return np.zeros(len(batch), dtype=np.int64)

        def __call__(self, score, batch, final_scores, state):
            return state + 0.5, state + 0.5

    env = make("single", reward=Grows())
    start(env)
    assert [env.step(0)[1] for _ in range(3)] == [0.5, 1.0, 1.5]


def test_a_source_without_a_state_does_not_observe_what_happens_in_a_clone():
    class Observed(PromptSource):
        def __init__(self):
            self.count = 0

        def draw(self, rng):
            return Sample("Hi")

        def observe(self, samples, scores):
            self.count += len(samples)

    source = Observed()
    env = make("single", prompts=source)
    start(env)
    env.clone().step(EOS)
    assert source.count == 0
    env.step(EOS)
    assert source.count == 1


def test_an_end_whose_info_cannot_be_built_undoes_the_step(monkeypatch):
    class One(Scorer):
        def __call__(self, batch):
            return np.ones(len(batch))

    env = make("single", scorer=One())
    start(env)
    before = env.get_state()
    with monkeypatch.context() as patched:
        patched.setattr(type(CHAR), "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            env.step(EOS)
    check_same(before, env.get_state(), "state")
    assert env.step(EOS)[4]["score"] == 1.0


IMPLEMENTATIONS = ("prompts", "rewards", "scorers", "constraints", "observations", "actions")


def test_the_core_has_no_isinstance_of_a_component():
    """No ``isinstance`` in the folder envs names an implementation of an interface."""
    found = []
    for path in sorted((Path(textgym.__file__).parent / "envs").glob("*.py")):
        module = importlib.import_module(f"textgym.envs.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("isinstance", "issubclass")
            ):
                for name in (part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)):
                    home = getattr(getattr(module, name, None), "__module__", "")
                    if home.startswith(tuple(f"textgym.{package}" for package in IMPLEMENTATIONS)):
                        found.append(f"{path.name}:{node.lineno} {name}")
    assert found == []


class Weighted(PromptSource):
    """Draws one prompt, and counts the episodes in a list, which is no list over slots."""

    def __init__(self):
        self.weights = [0.2, 0.3, 0.5]

    def draw(self, rng):
        return Sample("Hi ")

    def observe(self, samples, scores):
        self.weights = [weight + len(samples) for weight in self.weights]

    def get_state(self):
        return {"weights": list(self.weights)}

    def set_state(self, state):
        self.weights = list(state["weights"])


def test_the_state_of_a_prompt_source_is_not_cut_with_the_slots():
    env = TextGenVectorEnv(5, tokenizer="char", prompts=Weighted(), scorer=len, max_new_tokens=2)
    env.reset(seed=0)
    for slots in ([0, 1], [0, 1, 2, 3, 4], [4] * 7):
        assert select_slots(env.get_state(), np.array(slots))["prompts"] == {"weights": [0.2, 0.3, 0.5]}
    simulation = Simulation(env, np.arange(5))
    assert simulation.state["prompts"] == {"weights": [0.2, 0.3, 0.5]}


class CountedReference:
    """Probability one half for every token; counts how often its cache is cleared."""

    def __init__(self):
        self.num_cleared = 0

    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        return np.full(len(ids), np.log(0.5))

    def clear(self):
        self.num_cleared += 1


@pytest.mark.parametrize("interface", ["SameStep", "NextStep", "Disabled", "sb3"])
def test_a_full_reset_of_several_episodes_clears_the_cache_of_the_kl_reference(interface):
    reference = CountedReference()
    env = make(interface, reference=reference, kl_penalty=0.1)
    start(env)
    play(env)
    assert reference.num_cleared == 1
    env.reset()
    assert reference.num_cleared == 2
