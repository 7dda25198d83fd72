"""The probe environments have the declared optimum, and ``probe_agent`` reports where an agent fails."""

import pickle
import re
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

import textgym
from textgym.errors import InvalidActionError
from textgym.lm import random_lm
from textgym.probes import PROBES, solve
from textgym.prompts import as_sample
from textgym.registration import IDS
from textgym.testing import ProbeResult, probe_agent
from textgym_agents import LMPolicy, Reinforce, ReinforceConfig

EVERY = pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
NUM_EPISODES = 4096


def returns_of(probe, choose, num_episodes=NUM_EPISODES, seed=0, num_envs=512):
    """Return (num_episodes,) returns of the first episodes of each environment under ``choose(env, observations)``."""
    env = gym.make_vec(probe.id, num_envs=num_envs, autoreset_mode="SameStep")
    observations, _ = env.reset(seed=seed)
    returns = [[] for _ in range(num_envs)]
    running = np.zeros(num_envs)
    while min(map(len, returns)) < num_episodes // num_envs:
        observations, rewards, terminated, truncated, _ = env.step(choose(env.unwrapped, observations))
        assert not truncated.any()
        running += rewards
        for slot in np.flatnonzero(terminated):
            returns[slot].append(running[slot])
            running[slot] = 0.0
    return np.array([values[: num_episodes // num_envs] for values in returns]).ravel()


def best_actions(probe, env):
    core = env.core
    written = (core.lengths - core.prompt_lengths).tolist()
    return np.array([probe.optimal_ids(sample)[t] for sample, t in zip(core.samples, written, strict=True)])


class Solver:
    """Optimal agent: reads the prompt from the observation and, where needed, the masks."""

    def __init__(self, probe):
        self.probe = probe
        self.prompt_size = probe.keywords["max_prompt_tokens"]
        self.num_calls = 0

    def learn(self, total_timesteps):
        self.num_calls += 1

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        assert deterministic
        assert episode_start.shape == (len(observation),)
        assert (action_masks is not None) == self.probe.needs_masks
        if self.probe.needs_masks:
            return action_masks.argmax(axis=1), state
        tokenizer = self.probe.keywords["tokenizer"]
        pad = tokenizer.vocab_size
        actions = []
        for row in observation:
            sample = textgym.Sample(tokenizer.decode(row[: self.prompt_size].tolist()))
            actions.append(self.probe.optimal_ids(sample)[(row[self.prompt_size :] != pad).sum()])
        return np.array(actions), state


class Constant:
    """Always chooses one action and learns nothing."""

    def __init__(self, action):
        self.action = action
        self.learned = 0

    def learn(self, total_timesteps):
        self.learned += total_timesteps

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        return np.full(len(observation), self.action), state


# The environments -----------------------------------------------------------------------------------------------------


def test_probes_are_registered_in_order_of_difficulty():
    registered = [env_id for env_id in IDS if "probe" in IDS[env_id]]
    assert list(PROBES) == registered == [probe.id for probe in PROBES.values()]


@EVERY
def test_optimal_actions_give_the_optimal_return(probe):
    returns = returns_of(probe, lambda env, _: best_actions(probe, env))
    if probe.id == "ProbeBandit-v0":
        assert set(returns) == {0.5, 1.5}
        assert returns.mean() == pytest.approx(probe.optimal_return, abs=4 * 0.5 / np.sqrt(NUM_EPISODES))
    else:
        assert (returns == probe.optimal_return).all()


@EVERY
def test_random_actions_give_the_random_return(probe):
    rng = np.random.default_rng(1)

    def choose(env, _):
        return np.where(env.action_masks(), rng.random((env.num_envs, env.num_actions)), -1).argmax(axis=1)

    returns = returns_of(probe, choose)
    assert returns.mean() == pytest.approx(probe.random_return, abs=4 * returns.std() / np.sqrt(NUM_EPISODES))


@EVERY
def test_no_return_exceeds_the_optimum_except_by_the_bandits_noise(probe):
    rng = np.random.default_rng(2)
    returns = returns_of(probe, lambda env, _: rng.integers(env.num_actions, size=env.num_envs))
    assert returns.max() <= (1.5 if probe.id == "ProbeBandit-v0" else probe.optimal_return)


@EVERY
def test_every_interface_gives_the_same_environment(probe):
    textgym_sb3 = pytest.importorskip("textgym.envs.sb3")
    envs = [gym.make_vec(name, num_envs=3, **extra) for name, extra in ((probe.id, {}), ("TextGen-v0", probe.keywords))]
    interface = textgym_sb3.TextGenVecEnv(3, id=probe.id)
    interface.seed(5)
    observations = [envs[0].reset(seed=5)[0], envs[1].reset(seed=5)[0], interface.reset()]
    assert (observations[0] == observations[1]).all()
    assert (observations[0] == observations[2]).all()


@EVERY
def test_ids_survive_a_serialised_spec_and_probes_a_pickle(probe):
    spec = EnvSpec.from_json(gym.make(probe.id).spec.to_json())
    assert gym.make(spec).unwrapped.num_actions == gym.make(probe.id).unwrapped.num_actions
    assert pickle.loads(pickle.dumps(probe)).id == probe.id


def test_the_documented_table_matches_the_environments():
    rows = re.findall(
        r"^\| ``(\S+)`` \| .* \| (\d+) \| (\d+) \|$", textgym.describe("ProbeCopy-v0"), flags=re.MULTILINE
    )
    envs = [gym.make(name).unwrapped for name, *_ in rows]
    assert [(name, int(V), int(budget)) for name, V, budget in rows] == [
        (name, env.num_actions, env.max_new_tokens) for name, env in zip(PROBES, envs, strict=True)
    ]


@EVERY
def test_the_page_of_a_probe_has_the_headings_of_every_environment_and_its_own_spaces(probe):
    page, env = textgym.describe(probe.id), gym.make(probe.id).unwrapped
    assert page.startswith(f"{probe.aim}\n")
    headings = [re.findall("^## (.+)", text, flags=re.MULTILINE) for text in (page, textgym.describe("TextGen-v0"))]
    assert headings[0] == headings[1]
    assert f"``Discrete({env.num_actions})``" in page
    assert f"``Box(0, {env.num_actions}, ({env.window},), int64)``" in page


def test_a_keyword_of_an_id_can_be_overridden():
    assert gym.make("ProbeCopy-v0", observation="dict").reset(seed=0)[0].keys() >= {"ids"}
    with pytest.raises(TypeError, match="did you mean 'constraints'"):
        gym.make("ProbeCopy-v0", constraint=())


@pytest.mark.parametrize("keyword", ["probe", "id"])
def test_an_unknown_probe_raises(keyword):
    with pytest.raises(ValueError, match=f"unknown {keyword} 'ProbeCopy'; did you mean 'ProbeCopy-v0'"):
        textgym.TextGenEnv(**{keyword: "ProbeCopy"})


def test_the_bandits_noise_differs_between_episodes_and_is_decided_by_the_seed():
    first, again, other = (returns_of(PROBES["ProbeBandit-v0"], always(0), 64, seed, 8) for seed in (0, 0, 1))
    assert set(first) == {0.5, 1.5}
    assert (first == again).all()
    assert (first != other).any()


def always(action):
    return lambda env, _: np.full(env.num_envs, action)


@EVERY
def test_the_documented_returns_are_exact(probe):
    prompts = probe.keywords["prompts"]
    env = gym.make(probe.id, prompts=prompts[::101] if len(prompts) > 1000 else prompts)  # each has the same returns
    assert solve(env).expected_return == pytest.approx(probe.optimal_return, abs=1e-12)
    uniform = solve(env, lambda ids: np.zeros((len(ids), env.unwrapped.num_actions)))
    assert uniform.expected_return == pytest.approx(probe.random_return, abs=1e-12)
    assert probe.random_return <= 0.3 * probe.optimal_return


def test_the_noise_of_the_bandits_arms_is_independent():
    noise = [sample.metadata["noise"] for sample in PROBES["ProbeBandit-v0"].keywords["prompts"]]
    assert [(each["a"], each["b"]) for each in noise] == [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]


@EVERY
def test_a_prompt_given_at_reset_is_scored_without_metadata(probe):
    env = gym.make(probe.id).unwrapped
    letters = "a" * probe.keywords["max_prompt_tokens"]
    env.reset(seed=0, options={"prompt": letters})
    for action in probe.optimal_ids(textgym.Sample(letters)):
        *_, reward, terminated, _, info = env.step(action)
    assert terminated
    assert reward == probe.optimal_return
    assert info["prompt"] == letters


def test_an_empty_completion_scores_zero():
    for probe in PROBES.values():
        env = gym.make(probe.id).unwrapped
        env.reset(seed=0)
        assert env.step(env.eos_token_id)[1] == 0.0


# Masks ----------------------------------------------------------------------------------------------------------------

TRAP = PROBES["ProbeTrap-v0"]


def test_only_the_trap_needs_masks():
    assert [probe.id for probe in PROBES.values() if probe.needs_masks] == ["ProbeTrap-v0"]
    for probe in PROBES.values():
        assert gym.make(probe.id).unwrapped.has_invalid_actions == probe.needs_masks


def test_the_traps_are_two_letters_drawn_anew_at_each_step_and_unseen():
    env = gym.make_vec("ProbeTrap-v0", num_envs=256)
    observations, _ = env.reset(seed=0)
    first = env.unwrapped.action_masks()
    assert (observations == observations[0]).all()
    assert (first.sum(axis=1) == 5).all()
    assert first[:, 6].all()
    assert not first[:, :6].all(axis=0).any()
    env.step(first.argmax(axis=1))
    assert (env.unwrapped.action_masks() != first).any()


def test_an_invalid_letter_ends_the_episode_and_costs_one():
    env = gym.make("ProbeTrap-v0").unwrapped
    env.reset(seed=0)
    env.step(int(env.action_masks().argmax()))
    *_, reward, terminated, _, info = env.step(int(env.action_masks().argmin()))
    assert terminated
    assert info["end_reason"] == "invalid_action"
    assert reward == pytest.approx(1 / 3 - 1)


@pytest.mark.slow
def test_no_constant_answer_survives_the_traps_without_masks():
    for action in range(6):
        assert returns_of(TRAP, always(action)).mean() < 0


def test_the_trap_may_raise_instead():
    env = gym.make("ProbeTrap-v0", on_invalid_action="raise").unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidActionError):
        env.step(int(env.action_masks().argmin()))


# probe_agent ----------------------------------------------------------------------------------------------------------


def test_an_optimal_agent_passes_every_probe_at_the_first_evaluation():
    report = probe_agent(lambda probe, seed: Solver(probe), seeds=(0, 1))
    assert report.passed
    assert report.first_failure is None
    assert [(result.probe.id, result.seed) for result in report.results] == [
        (name, seed) for name in PROBES for seed in (0, 1)
    ]
    for result in report.results:
        assert result.timesteps == result.probe.timesteps / 10
        if result.probe.id != "ProbeBandit-v0":
            assert result.mean_return == 1.0
    assert str(report).endswith("Every probe was passed.")


def test_an_agent_that_always_stops_fails_every_probe_and_the_report_has_a_diagnosis():
    agents = []

    def make(probe, seed):
        agents.append(Constant(probe.keywords["tokenizer"].eos_token_id))
        return agents[-1]

    report = probe_agent(make, seeds=[7], num_episodes=16, num_envs=8)
    assert not report.passed
    assert not any(result.passed for result in report.results)
    failure = report.first_failure
    assert (failure.probe, failure.seed, failure.mean_return) == (PROBES["ProbeConstant-v0"], 7, 0.0)
    assert [agent.learned for agent in agents] == [probe.timesteps for probe in PROBES.values()]
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(PROBES) + 1
    assert lines[1].split()[:6] == ["ProbeConstant-v0", "7", "0.000", "1.000", "0.148", "4000"]
    assert lines[1].endswith("FAILED")
    assert lines[-1] == f"The first failure is ProbeConstant-v0 with seed 7. {failure.probe.diagnosis}"


def test_an_agent_that_ignores_its_observation_fails_where_that_first_matters():
    best = {"ProbeConstant-v0": 1, "ProbeBandit-v0": 0}
    report = probe_agent(lambda probe, seed: Constant(best.get(probe.id, 1)), probes=list(PROBES)[:3])
    assert report.first_failure.probe.id == "ProbePrompt-v0"
    assert "does not read its observation" in str(report)


class Blind(Constant):
    """Has no parameter for masks, like the agents of Stable-Baselines3."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return super().predict(observation)


class TakesWhatComes(Solver):
    def predict(self, observation, **keywords):
        return super().predict(observation, **keywords)


def test_an_agent_without_masks_fails_the_trap_without_an_error():
    report = probe_agent(lambda probe, seed: Blind(0), probes=["ProbeTrap-v0"])
    assert report.first_failure.mean_return < 0
    assert "without the masks" in str(report)
    assert probe_agent(lambda probe, seed: TakesWhatComes(probe), probes=["ProbeTrap-v0"]).passed


def test_an_agent_may_change_its_masks_in_place():
    class Writes(Solver):
        def predict(self, observation, action_masks=None, **keywords):
            actions, state = super().predict(observation, action_masks=action_masks, **keywords)
            action_masks[:] = False
            return actions, state

    assert probe_agent(lambda probe, seed: Writes(probe), probes=["ProbeTrap-v0"]).passed


@pytest.mark.parametrize(
    "num_envs", [pytest.param(1, marks=pytest.mark.slow), 8, pytest.param(64, marks=pytest.mark.slow), 128]
)
@pytest.mark.parametrize("num_episodes", [32, pytest.param(128, marks=pytest.mark.slow), 512])
def test_the_better_arm_passes_and_the_worse_fails_whatever_the_noise(num_envs, num_episodes):
    settings = {"probes": ["ProbeBandit-v0"], "num_envs": num_envs, "num_episodes": num_episodes}
    assert probe_agent(lambda probe, seed: Constant(0), **settings).passed
    assert not probe_agent(lambda probe, seed: Constant(1), **settings).passed


def test_the_report_can_be_pickled():
    report = probe_agent(lambda probe, seed: Solver(probe), probes=["ProbePrompt-v0"])
    assert str(pickle.loads(pickle.dumps(report))) == str(report)
    assert isinstance(report.results[0], ProbeResult)


def test_a_custom_probe_is_accepted():
    easy = replace(PROBES["ProbePrompt-v0"], id="Mine-v0", optimal_return=0.1, timesteps=10)
    assert probe_agent(lambda probe, seed: Constant(1), probes=[easy]).passed


class CountsAsSB3(Constant):
    """Restarts its step count unless ``reset_num_timesteps=False``, and trains on batches of 48."""

    num_timesteps = 0

    def learn(self, total_timesteps, callback=None, reset_num_timesteps=True):
        assert not reset_num_timesteps
        self.num_timesteps += -(-total_timesteps // 48) * 48


def test_the_agents_own_step_count_is_used():
    probe = probe_agent(lambda probe, seed: CountsAsSB3(4), probes=["ProbeConstant-v0"]).results[0]
    assert probe.timesteps == 10 * 432  # ten times 400, each rounded up to whole batches


class MeanOfStarts(Constant):
    """Is right in the first episode of each environment only."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        state = np.zeros(len(observation)) if state is None else state + episode_start
        return np.where(state == 0, np.array([1, 2, 3, 0])[observation[:, 0]], 4), state


@pytest.mark.parametrize(("num_episodes", "expected"), [(8, 1.0), (16, 0.5), (12, 8 / 12), (3, 1.0)])
def test_the_evaluation_counts_the_first_episodes_of_each_environment(num_episodes, expected):
    report = probe_agent(
        lambda probe, seed: MeanOfStarts(0), probes=["ProbePrompt-v0"], num_envs=8, num_episodes=num_episodes
    )
    assert report.results[0].mean_return == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"agent_factory": 3}, TypeError, r"agent_factory must be a function f\(probe, seed\), got 3"),
        ({"agent_factory": lambda probe, seed: object()}, TypeError, "an agent with learn and predict"),
        ({"probes": ["ProbeCopi-v0"]}, ValueError, "unknown probe 'ProbeCopi-v0'; did you mean 'ProbeCopy-v0'"),
        ({"probes": "ProbeCopy-v0"}, TypeError, "probes must be a list, got 'ProbeCopy-v0'"),
        ({"probes": []}, ValueError, "probes is empty"),
        ({"probes": [3]}, ValueError, "unknown probe 3"),
        ({"seeds": 3}, TypeError, "seeds must be a list, got 3"),
        ({"seeds": ()}, ValueError, "seeds is empty"),
        ({"threshold": 0}, ValueError, "threshold must be above 0 and at most 1, got 0"),
        ({"threshold": 90}, ValueError, "threshold must be above 0 and at most 1, got 90"),
        ({"num_envs": 0}, ValueError, "num_envs must be an integer of at least 1, got 0"),
        ({"num_episodes": 1.5}, ValueError, r"num_episodes must be an integer of at least 1, got 1\.5"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        probe_agent(**{"agent_factory": lambda probe, seed: Solver(probe)} | arguments)


def test_probing_imports_no_torch():
    code = """
import sys
from textgym.testing import probe_agent
class Idle:
    def learn(self, total_timesteps): ...
    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        return observation[:, 0] * 0, state
print(probe_agent(lambda probe, seed: Idle(), num_episodes=8).passed, "torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("False False\n", "")


# A learning agent, whose policy is a random LM ------------------------------------------------------------------------


def reinforce(probe, seed):
    env = gym.make_vec(probe.id, num_envs=64, autoreset_mode="SameStep")
    policy = LMPolicy(random_lm(env.unwrapped.num_actions, seed=seed))
    return Reinforce(policy, env, ReinforceConfig(num_episodes=64, learning_rate=3e-3, kl_coef=0.0, seed=seed))


@pytest.mark.slow
def test_reinforce_passes_every_probe():
    report = probe_agent(reinforce)
    assert report.passed, str(report)


def test_a_random_lm_is_decided_by_its_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (random_lm(5, seed=seed).transformer.wte.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_random_lm_is_small_and_ready():
    lm = random_lm(5, window=12, width=16, num_layers=1)
    assert not lm.training
    assert (lm.config.n_positions, lm.config.n_embd, lm.config.n_layer, lm.config.vocab_size) == (12, 16, 1, 5)
    assert lm.config.eos_token_id == lm.config.bos_token_id == 4
    assert lm.config.activation_function == "gelu_pytorch_tanh"
    assert {lm.config.resid_pdrop, lm.config.embd_pdrop, lm.config.attn_pdrop} == {0.0}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"vocab_size": 5, "window": 0}, "window must be at least 1, got 0"),
        ({"vocab_size": 5, "width": 24}, "width must be a multiple of 16, got 24"),
    ],
)
def test_a_random_lm_of_an_impossible_size_raises(sizes, message):
    with pytest.raises(ValueError, match=message):
        random_lm(**sizes)


def test_no_prompt_is_listed_twice():
    for probe in PROBES.values():
        samples = [repr(as_sample(prompt)) for prompt in probe.keywords["prompts"]]
        assert len(set(samples)) == len(samples)
