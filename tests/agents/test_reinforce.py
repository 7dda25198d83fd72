"""Reinforce: it learns, a seed decides, and a saved run continues exactly."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from fixtures import make_env, small_lm
from textgym import TextGenVecEnv
from textgym_agents import LMPolicy, Reinforce, ReinforceConfig, collect


def agent_of(seed=0, env=None, **settings):
    config = ReinforceConfig(seed=seed, **{"num_episodes": 32, "learning_rate": 3e-3, "kl_coef": 0.0} | settings)
    return Reinforce(LMPolicy(small_lm(seed)), make_env(32) if env is None else env, config)


def mean_return(agent, num_episodes=64):
    return collect(make_env(32), agent.policy, num_episodes, seed=9, generator=agent.generator).returns.mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_reaches_ninety_percent_of_the_optimum_where_chance_gets_an_eighth(seed):
    agent = agent_of(seed)
    assert mean_return(agent) < 0.25
    agent.learn(12_000)
    assert mean_return(agent) > 0.9


@pytest.mark.slow
def test_a_stronger_kl_penalty_keeps_the_policy_closer_to_the_reference():
    kls = []
    for kl_coef in (0.01, 1.0):
        metrics = []
        agent_of(kl_coef=kl_coef).learn(5_000, callback=lambda _, now: metrics.append(now))  # noqa: B023
        kls.append(metrics[-1]["train/kl_reference"])
    assert kls[1] < 0.2 * kls[0]


@pytest.mark.slow
def test_the_entropy_bonus_keeps_the_policy_random():
    entropies = []
    for ent_coef in (0.0, 1.0):
        metrics = []
        agent_of(ent_coef=ent_coef).learn(5_000, callback=lambda _, now: metrics.append(now))  # noqa: B023
        entropies.append(-metrics[-1]["train/entropy_loss"])
    assert entropies[1] > 1.5 * entropies[0]


def test_the_same_seed_gives_the_same_parameters_and_another_does_not():
    first, again = agent_of(env=make_env(8)).learn(500), agent_of(env=make_env(8)).learn(500)
    other = agent_of(env=make_env(8), seed=0)
    other.generator.manual_seed(1)
    other.learn(500)
    weights = [agent.policy.state_dict()["backbone.model.transformer.wte.weight"] for agent in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_saving_and_loading_in_the_middle_changes_nothing(tmp_path):
    straight = agent_of(kl_coef=0.1).learn(400)
    straight.save(tmp_path)
    straight.learn(400)
    resumed = Reinforce.load(tmp_path, make_env(32))
    assert resumed.num_timesteps < straight.num_timesteps
    resumed.learn(400)
    assert resumed.num_timesteps == straight.num_timesteps
    for name, tensor in straight.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], tensor), name


def test_loading_keeps_the_dtype_of_the_weights(tmp_path):
    agent = Reinforce(LMPolicy(small_lm().bfloat16()), make_env(32), ReinforceConfig(num_episodes=32, kl_coef=0.1))
    agent.learn(200).save(tmp_path)
    agent.learn(200)
    resumed = Reinforce.load(tmp_path, make_env(32)).learn(200)
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], tensor), name
    assert resumed.kl.reference.copy.model.dtype == torch.bfloat16


def test_saving_over_the_folder_that_was_loaded_loses_nothing(tmp_path):
    agent_of().learn(200).save(tmp_path)
    agent = Reinforce.load(tmp_path, make_env(32))
    agent.save(tmp_path)
    agent.learn(200).save(tmp_path)
    again = Reinforce.load(tmp_path, make_env(32))
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], tensor), name


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path):
    agent_of().learn(100).save(tmp_path)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_loading_from_a_folder_without_a_checkpoint_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a checkpoint: it has no agent\.json"):
        Reinforce.load(tmp_path, make_env())


def test_loading_with_another_number_of_environments_raises(tmp_path):
    agent_of().learn(100).save(tmp_path)
    with pytest.raises(ValueError, match=r"32 generator states for .*8"):
        Reinforce.load(tmp_path, make_env(8))


def test_a_model_of_another_vocabulary_is_refused():
    with pytest.raises(ValueError, match="the environment has 257 actions, the model a vocabulary of 8"):
        agent_of(env=make_env(4, tokenizer="byte"))


def test_a_window_beyond_the_models_positions_is_refused_at_once():
    with pytest.raises(ValueError, match="window is 104 tokens, but GPT2LMHeadModel has 64 positions; lower max_"):
        agent_of(env=make_env(4, max_new_tokens=100))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1, got 0"),
        ({"kl_coef": -0.1}, "kl_coef must be at least 0, got -0.1"),
        ({"gamma": 1.5}, "gamma must be from 0 to 1, got 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ReinforceConfig(**setting)


def test_a_gradient_that_is_not_finite_raises_before_it_reaches_the_weights():
    agent = agent_of()
    episodes = collect(agent.env, agent.policy, 32, seed=0, generator=agent.generator)
    episodes.rewards[0, 0] = torch.inf
    before = agent.policy.model.transformer.wte.weight.clone()
    with pytest.raises(FloatingPointError, match="norm is nan in update 1"):
        agent.update(episodes)
    assert torch.equal(agent.policy.model.transformer.wte.weight, before)


def test_the_kl_that_is_not_computed_is_not_shown():
    rows = []
    for kl_coef in (0.0, 0.1):
        agent_of(kl_coef=kl_coef).learn(50, callback=lambda _, metrics: rows.append(metrics))
    assert "train/kl_reference" not in rows[0]
    assert rows[-1]["train/kl_reference"] == pytest.approx(0.0, abs=1e-5)


def test_a_text_whose_scorer_failed_does_not_count_in_the_mean_score():
    def score(completion):
        if "c" in completion:
            raise ValueError("no c")
        return 1.0

    rows = []
    agent = agent_of(env=make_env(32, scorer=score, on_scorer_error="invalid"))
    agent.learn(50, callback=lambda _, metrics: rows.append(metrics))
    assert rows[0]["rollout/score_mean"] == 1.0
    assert 0 < rows[0]["rollout/ep_rew_mean"] < 1


def test_a_callback_that_returns_false_stops_the_training():
    agent = agent_of()
    agent.learn(100_000, callback=lambda agent, _: agent.num_updates < 2)
    assert agent.num_updates == 2


def test_truncated_episodes_bootstrap_only_where_asked_for():
    env = make_env(32, time_limit="truncated", scorer=lambda completion: 0.0)
    losses = {}
    for bootstrap in (False, True):
        agent = agent_of(env=env, bootstrap_truncated=bootstrap)
        torch.nn.init.constant_(agent.policy.value_head.length_values, 1.0)
        episodes = collect(env, agent.policy, 32, seed=0, generator=agent.generator)
        losses[bootstrap] = agent.update(episodes)["train/value_loss"]
    # All rewards are 0 and V = 1: the error is 1 where the return is 0, and 0 where V itself is the target.
    share_cut = (episodes.num_steps * episodes.truncated).sum() / episodes.num_steps.sum()
    assert losses[False] == pytest.approx(0.5)
    assert losses[True] == pytest.approx(0.5 * (1 - share_cut.item()), abs=1e-5)


def test_predict_takes_single_and_batched_observations_and_masks():
    agent = agent_of()
    single, state = agent.predict(np.array([0, 1, 8, 8]), state="kept")
    batched, _ = agent.predict(np.array([[0, 1, 8, 8], [2, 8, 8, 8]]), deterministic=True)
    assert single.shape == ()
    assert batched.shape == (2,)
    assert state == "kept"
    only_four = np.arange(8) == 4
    assert agent.predict(np.array([0, 1, 8, 8]), action_masks=only_four)[0] == 4


def test_sb3s_evaluate_policy_accepts_the_agent():
    base = make_env(2).unwrapped
    env = VecMonitor(TextGenVecEnv(4, tokenizer=base.tokenizer, prompts=["a"], scorer=len, max_new_tokens=3))
    mean, _ = evaluate_policy(agent_of(), env, n_eval_episodes=8)
    assert 0 <= mean <= 3


def test_training_on_no_token_is_refused():
    with pytest.raises(ValueError, match="total_timesteps must be at least 1, got 0"):
        agent_of().learn(0)


def test_the_moving_average_is_of_the_updates_before_and_zero_in_the_first():
    settings = {"baseline": "moving_average", "baseline_decay": 0.5, "normalize_advantage": False}
    agent = agent_of(env=make_env(8), **settings)
    baselines, means = [], []
    for _ in range(3):
        episodes = agent.collect()
        agent.update(episodes)
        returns, mask = episodes.value_targets, episodes.mask
        baselines.append((returns - episodes.advantages)[mask])
        means.append(float(returns[mask].mean()))
    for baseline, expected in zip(baselines, [0.0, means[0], (means[0] + means[1]) / 2], strict=True):
        torch.testing.assert_close(baseline, torch.full_like(baseline, expected))


def test_metrics_carry_sb3s_names():
    rows = []
    agent_of().learn(100, callback=lambda _, metrics: rows.append(metrics))
    names = {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps", "time/time_elapsed",
        "train/n_updates", "train/loss", "train/policy_gradient_loss", "train/value_loss", "train/entropy_loss",
        "train/explained_variance",
    }  # fmt: skip
    assert names <= rows[0].keys()
