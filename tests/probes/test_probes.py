"""The probe environments have the optimum that they claim, and the ladder says where an agent stops climbing."""

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

EVERY = pytest.mark.parametrize("rung", PROBES.values(), ids=PROBES)
NUM_EPISODES = 4096


def returns_of(rung, choose, num_episodes=NUM_EPISODES, seed=0, num_envs=512):
    """Play the first episodes of each slot with ``choose(env, observations)``; return their (num_episodes,) returns."""
    env = gym.make_vec(rung.id, num_envs=num_envs, autoreset_mode="SameStep")
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


def best_actions(rung, env):
    core = env.core
    written = (core.lengths - core.prompt_lengths).tolist()
    return np.array([rung.optimal_ids(sample)[t] for sample, t in zip(core.samples, written, strict=True)])


class Solver:
    """Knows what to write: it reads the prompt from the observation, and where that is not enough, the masks."""

    def __init__(self, rung):
        self.rung = rung
        self.prompt_size = rung.keywords["max_prompt_tokens"]
        self.num_calls = 0

    def learn(self, total_timesteps):
        self.num_calls += 1

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        assert deterministic
        assert episode_start.shape == (len(observation),)
        assert (action_masks is not None) == self.rung.needs_masks
        if self.rung.needs_masks:
            return action_masks.argmax(axis=1), state
        tokenizer = self.rung.keywords["tokenizer"]
        pad = tokenizer.vocab_size
        actions = []
        for row in observation:
            sample = textgym.Sample(tokenizer.decode(row[: self.prompt_size].tolist()))
            actions.append(self.rung.optimal_ids(sample)[(row[self.prompt_size :] != pad).sum()])
        return np.array(actions), state


class Constant:
    """Writes one token, whatever it sees, and learns nothing."""

    def __init__(self, action):
        self.action = action
        self.learned = 0

    def learn(self, total_timesteps):
        self.learned += total_timesteps

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        return np.full(len(observation), self.action), state


# The environments -----------------------------------------------------------------------------------------------------


def test_the_ladder_is_registered_in_its_order():
    registered = [env_id for env_id in IDS if "probe" in IDS[env_id]]
    assert list(PROBES) == registered == [rung.id for rung in PROBES.values()]


@EVERY
def test_optimal_play_gets_the_optimal_return(rung):
    returns = returns_of(rung, lambda env, _: best_actions(rung, env))
    if rung.id == "ProbeBandit-v0":
        assert set(returns) == {0.5, 1.5}
        assert returns.mean() == pytest.approx(rung.optimal_return, abs=4 * 0.5 / np.sqrt(NUM_EPISODES))
    else:
        assert (returns == rung.optimal_return).all()


@EVERY
def test_random_play_gets_the_random_return(rung):
    rng = np.random.default_rng(1)

    def choose(env, _):
        return np.where(env.action_masks(), rng.random((env.num_envs, env.num_actions)), -1).argmax(axis=1)

    returns = returns_of(rung, choose)
    assert returns.mean() == pytest.approx(rung.random_return, abs=4 * returns.std() / np.sqrt(NUM_EPISODES))


@EVERY
def test_nothing_but_the_bandits_coins_pays_more_than_the_optimum(rung):
    rng = np.random.default_rng(2)
    returns = returns_of(rung, lambda env, _: rng.integers(env.num_actions, size=env.num_envs))
    assert returns.max() <= (1.5 if rung.id == "ProbeBandit-v0" else rung.optimal_return)


@EVERY
def test_the_keywords_make_the_same_environment_in_every_interface(rung):
    textgym_sb3 = pytest.importorskip("textgym.envs.sb3")
    envs = [gym.make_vec(name, num_envs=3, **extra) for name, extra in ((rung.id, {}), ("TextGen-v0", rung.keywords))]
    interface = textgym_sb3.TextGenVecEnv(3, id=rung.id)
    interface.seed(5)
    observations = [envs[0].reset(seed=5)[0], envs[1].reset(seed=5)[0], interface.reset()]
    assert (observations[0] == observations[1]).all()
    assert (observations[0] == observations[2]).all()


@EVERY
def test_ids_survive_a_serialised_spec_and_probes_a_pickle(rung):
    spec = EnvSpec.from_json(gym.make(rung.id).spec.to_json())
    assert gym.make(spec).unwrapped.num_actions == gym.make(rung.id).unwrapped.num_actions
    assert pickle.loads(pickle.dumps(rung)).id == rung.id


def test_the_documented_table_is_true():
    rows = re.findall(
        r"^\| ``(\S+)`` \| .* \| (\d+) \| (\d+) \|$", textgym.describe("ProbeCopy-v0"), flags=re.MULTILINE
    )
    envs = [gym.make(name).unwrapped for name, *_ in rows]
    assert [(name, int(V), int(budget)) for name, V, budget in rows] == [
        (name, env.num_actions, env.max_new_tokens) for name, env in zip(PROBES, envs, strict=True)
    ]


@EVERY
def test_the_page_of_a_probe_has_the_headings_of_every_environment_and_its_own_spaces(rung):
    page, env = textgym.describe(rung.id), gym.make(rung.id).unwrapped
    assert page.startswith(f"{rung.aim}\n")
    headings = [re.findall("^## (.+)", text, flags=re.MULTILINE) for text in (page, textgym.describe("TextGen-v0"))]
    assert headings[0] == headings[1]
    assert f"``Discrete({env.num_actions})``" in page
    assert f"``Box(0, {env.num_actions}, ({env.window},), int64)``" in page


def test_a_keyword_of_an_id_can_be_overridden():
    assert gym.make("ProbeCopy-v0", observation="dict").reset(seed=0)[0].keys() >= {"ids"}
    with pytest.raises(TypeError, match="did you mean 'constraints'"):
        gym.make("ProbeCopy-v0", constraint=())


@pytest.mark.parametrize("keyword", ["probe", "id"])
def test_an_unknown_probe_is_refused(keyword):
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
def test_the_documented_returns_are_exact(rung):
    prompts = rung.keywords["prompts"]
    env = gym.make(rung.id, prompts=prompts[::101] if len(prompts) > 1000 else prompts)  # each has the same returns
    assert solve(env).expected_return == pytest.approx(rung.optimal_return, abs=1e-12)
    uniform = solve(env, lambda ids: np.zeros((len(ids), env.unwrapped.num_actions)))
    assert uniform.expected_return == pytest.approx(rung.random_return, abs=1e-12)
    assert rung.random_return <= 0.3 * rung.optimal_return


def test_the_bandits_arms_are_lucky_independently():
    noise = [sample.metadata["noise"] for sample in PROBES["ProbeBandit-v0"].keywords["prompts"]]
    assert [(each["a"], each["b"]) for each in noise] == [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]


@EVERY
def test_a_prompt_given_at_reset_has_no_metadata_and_is_scored_all_the_same(rung):
    env = gym.make(rung.id).unwrapped
    letters = "a" * rung.keywords["max_prompt_tokens"]
    env.reset(seed=0, options={"prompt": letters})
    for action in rung.optimal_ids(textgym.Sample(letters)):
        *_, reward, terminated, _, info = env.step(action)
    assert terminated
    assert reward == rung.optimal_return
    assert info["prompt"] == letters


def test_an_empty_completion_is_worth_nothing():
    for rung in PROBES.values():
        env = gym.make(rung.id).unwrapped
        env.reset(seed=0)
        assert env.step(env.eos_token_id)[1] == 0.0


# Masks ----------------------------------------------------------------------------------------------------------------

TRAP = PROBES["ProbeTrap-v0"]


def test_only_the_trap_needs_masks():
    assert [rung.id for rung in PROBES.values() if rung.needs_masks] == ["ProbeTrap-v0"]
    for rung in PROBES.values():
        assert gym.make(rung.id).unwrapped.has_invalid_actions == rung.needs_masks


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


# The ladder -----------------------------------------------------------------------------------------------------------


def test_a_solver_passes_the_whole_ladder_at_the_first_evaluation():
    report = probe_agent(lambda rung, seed: Solver(rung), seeds=(0, 1))
    assert report.passed
    assert report.first_failure is None
    assert [(rung.probe.id, rung.seed) for rung in report.results] == [
        (name, seed) for name in PROBES for seed in (0, 1)
    ]
    for rung in report.results:
        assert rung.timesteps == rung.probe.timesteps / 10
        if rung.probe.id != "ProbeBandit-v0":
            assert rung.mean_return == 1.0
    assert str(report).endswith("Every probe was passed.")


def test_an_agent_that_always_stops_fails_everything_and_the_report_says_what_that_means():
    agents = []

    def make(rung, seed):
        agents.append(Constant(rung.keywords["tokenizer"].eos_token_id))
        return agents[-1]

    report = probe_agent(make, seeds=[7], num_episodes=16, num_envs=8)
    assert not report.passed
    assert not any(rung.passed for rung in report.results)
    failure = report.first_failure
    assert (failure.probe, failure.seed, failure.mean_return) == (PROBES["ProbeConstant-v0"], 7, 0.0)
    assert [agent.learned for agent in agents] == [rung.timesteps for rung in PROBES.values()]
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(PROBES) + 1
    assert lines[1].split()[:6] == ["ProbeConstant-v0", "7", "0.000", "1.000", "0.148", "4000"]
    assert lines[1].endswith("FAILED")
    assert lines[-1] == f"The first failure is ProbeConstant-v0 with seed 7. {failure.probe.diagnosis}"


def test_an_agent_that_ignores_its_observation_fails_where_that_first_matters():
    best = {"ProbeConstant-v0": 1, "ProbeBandit-v0": 0}
    report = probe_agent(lambda rung, seed: Constant(best.get(rung.id, 1)), probes=list(PROBES)[:3])
    assert report.first_failure.probe.id == "ProbePrompt-v0"
    assert "does not read its observation" in str(report)


class Blind(Constant):
    """Has no parameter for masks, as the stock agents of Stable-Baselines3."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return super().predict(observation)


class TakesWhatComes(Solver):
    def predict(self, observation, **keywords):
        return super().predict(observation, **keywords)


def test_an_agent_that_knows_no_masks_fails_the_trap_and_nothing_breaks():
    report = probe_agent(lambda rung, seed: Blind(0), probes=["ProbeTrap-v0"])
    assert report.first_failure.mean_return < 0
    assert "without the masks" in str(report)
    assert probe_agent(lambda rung, seed: TakesWhatComes(rung), probes=["ProbeTrap-v0"]).passed


def test_masks_are_given_as_arrays_of_the_agents_own():
    class Writes(Solver):
        def predict(self, observation, action_masks=None, **keywords):
            actions, state = super().predict(observation, action_masks=action_masks, **keywords)
            action_masks[:] = False
            return actions, state

    assert probe_agent(lambda rung, seed: Writes(rung), probes=["ProbeTrap-v0"]).passed


@pytest.mark.parametrize("num_envs", [1, 8, 64, 128])
@pytest.mark.parametrize("num_episodes", [32, 128, 512])
def test_the_better_arm_passes_and_the_worse_fails_whatever_the_coins(num_envs, num_episodes):
    settings = {"probes": ["ProbeBandit-v0"], "num_envs": num_envs, "num_episodes": num_episodes}
    assert probe_agent(lambda rung, seed: Constant(0), **settings).passed
    assert not probe_agent(lambda rung, seed: Constant(1), **settings).passed


def test_the_report_can_be_pickled():
    report = probe_agent(lambda rung, seed: Solver(rung), probes=["ProbePrompt-v0"])
    assert str(pickle.loads(pickle.dumps(report))) == str(report)
    assert isinstance(report.results[0], ProbeResult)


def test_a_probe_of_ones_own_is_taken():
    easy = replace(PROBES["ProbePrompt-v0"], id="Mine-v0", optimal_return=0.1, timesteps=10)
    assert probe_agent(lambda rung, seed: Constant(1), probes=[easy]).passed


class CountsAsSB3(Constant):
    """Starts to count from 0 unless told not to, and learns from batches of 48."""

    num_timesteps = 0

    def learn(self, total_timesteps, callback=None, reset_num_timesteps=True):
        assert not reset_num_timesteps
        self.num_timesteps += -(-total_timesteps // 48) * 48


def test_an_agent_that_counts_its_tokens_is_believed_and_keeps_counting():
    rung = probe_agent(lambda rung, seed: CountsAsSB3(4), probes=["ProbeConstant-v0"]).results[0]
    assert rung.timesteps == 10 * 432  # ten times 400, each rounded up to whole batches


class MeanOfStarts(Constant):
    """Is right in the first episode of each slot and never again."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        state = np.zeros(len(observation)) if state is None else state + episode_start
        return np.where(state == 0, np.array([1, 2, 3, 0])[observation[:, 0]], 4), state


@pytest.mark.parametrize(("num_episodes", "expected"), [(8, 1.0), (16, 0.5), (12, 8 / 12), (3, 1.0)])
def test_the_evaluation_counts_the_first_episodes_of_each_slot(num_episodes, expected):
    report = probe_agent(
        lambda rung, seed: MeanOfStarts(0), probes=["ProbePrompt-v0"], num_envs=8, num_episodes=num_episodes
    )
    assert report.results[0].mean_return == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"agent_factory": 3}, TypeError, r"agent_factory must be a function f\(probe, seed\), got 3"),
        ({"agent_factory": lambda rung, seed: object()}, TypeError, "an agent with learn and predict"),
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
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        probe_agent(**{"agent_factory": lambda rung, seed: Solver(rung)} | arguments)


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


def reinforce(rung, seed):
    env = gym.make_vec(rung.id, num_envs=64, autoreset_mode="SameStep")
    policy = LMPolicy(random_lm(env.unwrapped.num_actions, seed=seed))
    return Reinforce(policy, env, ReinforceConfig(num_episodes=64, learning_rate=3e-3, kl_coef=0.0, seed=seed))


@pytest.mark.slow
def test_reinforce_climbs_the_ladder():
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
def test_a_random_lm_of_no_possible_size_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        random_lm(**sizes)


def test_no_prompt_is_listed_twice():
    for rung in PROBES.values():
        samples = [repr(as_sample(prompt)) for prompt in rung.keywords["prompts"]]
        assert len(set(samples)) == len(samples)
