"""Collection of whole episodes: selection, order, autoreset modes."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from fixtures import make_env, small_lm
from textgym.actions import Subset
from textgym.constraints import BanTokens
from textgym_agents import PPO, LMPolicy, collect
from textgym_agents.episodes import Episodes


class WithoutEos:
    """The letters a to h, none of which ends a text."""

    vocab_size = 8
    eos_token_id = None
    token_mask = np.ones(8, dtype=np.bool_)

    def encode(self, text):
        return ["abcdefgh".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("abcdefgh"[i] for i in ids)

    def decode_batch(self, texts):
        return [self.decode(ids) for ids in texts]

    def token_text(self, token_id):
        return "abcdefgh"[token_id]


class NothingAfterSixTokens:
    """Leaves no letter once a text is as long as it may be."""

    def mask(self, batch):
        return np.repeat(batch.num_new_tokens[:, None] < 6, 8, axis=1)


MODES = ("SameStep", "NextStep", "Disabled")


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def sampled(env, policy, num_episodes, **keywords):
    return collect(env, policy, num_episodes, seed=3, generator=torch.Generator().manual_seed(0), **keywords)


@pytest.mark.parametrize("mode", MODES)
def test_episodes_agree_with_the_final_info(policy, mode):
    episodes = sampled(make_env(mode=mode), policy, 30)
    assert len(episodes) == 30
    for b, info in enumerate(episodes.infos):
        start, steps = int(episodes.prompt_lengths[b]), int(episodes.num_steps[b])
        assert episodes.ids[b, start : start + steps].tolist() == info["completion_ids"]
        assert steps == info["length"]
        assert episodes.returns[b].item() == pytest.approx(info["score"])
        assert info["prompt"] in ("a", "cab", "dag")
        assert (episodes.ids[b, start + steps :] == 0).all()


def test_the_first_batch_is_the_same_in_every_autoreset_mode(policy):
    first, second, third = (sampled(make_env(mode=mode), policy, 8).ids for mode in MODES)
    assert torch.equal(first, second)
    assert torch.equal(first, third)


@pytest.mark.parametrize("mode", MODES)
def test_the_episodes_that_start_first_are_kept_not_those_that_end_first(policy, mode):
    """Short episodes must not be more frequent with many environments than with one."""
    many = sampled(make_env(num_envs=64, mode=mode), policy, 64)
    assert sorted(info["length"] for info in many.infos)[-1] == 6
    starts_first = sampled(make_env(num_envs=64, mode=mode), policy, 8)
    assert [info["completion_ids"] for info in starts_first.infos] == [
        info["completion_ids"] for info in many.infos[:8]
    ]


def test_fewer_and_more_episodes_than_environments(policy):
    assert len(sampled(make_env(num_envs=8), policy, 3)) == 3
    assert len(sampled(make_env(num_envs=8), policy, 21)) == 21


def test_with_an_environment_per_episode_the_prompts_do_not_depend_on_the_policy(policy):
    first, second = (sampled(make_env(num_envs=64), one, 64) for one in (policy, LMPolicy(small_lm(seed=1))))
    assert [info["prompt"] for info in first.infos] == [info["prompt"] for info in second.infos]
    assert first.num_steps.tolist() != second.num_steps.tolist()


def test_truncated_episodes_are_marked(policy):
    episodes = sampled(make_env(time_limit="truncated"), policy, 16)
    reasons = [info["end_reason"] for info in episodes.infos]
    assert episodes.truncated.tolist() == [reason == "max_new_tokens" for reason in reasons]
    assert {"eos", "max_new_tokens"} == set(reasons)


def test_masks_are_stored_as_bits(policy):
    episodes = sampled(make_env(constraints=[BanTokens(["c"])]), policy, 8)
    bits = np.unpackbits(episodes.action_masks[episodes.mask.numpy()], axis=1, count=8)
    assert (bits[:, 2] == 0).all()
    assert (np.delete(bits, 2, axis=1) == 1).all()


def test_without_constraints_no_masks_are_stored(policy):
    assert sampled(make_env(), policy, 8).action_masks is None


def test_options_reach_the_first_reset(policy):
    episodes = sampled(make_env(num_envs=2), policy, 2, options={"index": [2, 0]})
    assert [info["prompt"] for info in episodes.infos] == ["dag", "a"]


def test_a_dict_observation_serves_as_well(policy):
    episodes = sampled(make_env(observation="dict"), policy, 8)
    assert torch.equal(episodes.ids, sampled(make_env(), policy, 8).ids)


class LastToken:
    """The last token of the text alone, or of the dict's key ``ids``."""

    def __init__(self, key=None):
        self.key = key

    def space(self, tokenizer, window, max_new_tokens):
        box = gym.spaces.Box(0, tokenizer.vocab_size, (1,), np.int64)
        return gym.spaces.Dict({self.key: box}) if self.key else box

    def __call__(self, batch):
        ids = batch.last_ids[:, None]
        return {self.key: ids} if self.key else ids


@pytest.mark.parametrize("observation", [LastToken(), LastToken("ids"), LastToken("token")])
def test_observations_without_the_token_ids_are_refused_at_construction(policy, observation):
    env = make_env(observation=observation)
    for make in (lambda: PPO(policy, env), lambda: collect(env, policy, 8)):
        with pytest.raises(ValueError, match=r"reads token ids: .*'tokens', 'dict'.*got the observation space"):
            make()


def test_observations_transformed_by_a_wrapper_are_refused_too(policy):
    space = gym.spaces.Box(0, 1, (3,), np.float32)
    env = make_env(mode=AutoresetMode.DISABLED)
    env = gym.wrappers.vector.TransformObservation(env, lambda ids: ids[:, :3] / 8, single_observation_space=space)
    with pytest.raises(ValueError, match=r"reads token ids: .*got the observation space"):
        PPO(policy, env)


def test_wrappers_are_looked_through(policy):
    env = gym.wrappers.vector.RecordEpisodeStatistics(make_env())
    assert torch.equal(sampled(env, policy, 8).ids, sampled(make_env(), policy, 8).ids)


@pytest.mark.parametrize("final_info", ["numbers", "none"])
def test_an_incomplete_final_info_raises_before_the_first_reset(policy, final_info):
    env = make_env(final_info=final_info, reward="redistributed")
    with pytest.raises(ValueError, match=f"final_info='{final_info}'.* make the environment with final_info='full'"):
        collect(env, policy, 2)
    assert not env.unwrapped.running.any()


@pytest.mark.parametrize("mode", MODES)
def test_the_kl_penalty_of_the_environment_receives_the_log_probabilities(policy, mode):
    env = make_env(mode=mode, kl_penalty=0.5, reference=small_lm(seed=1))
    episodes = sampled(env, policy, 20)
    reference = LMPolicy(small_lm(seed=1)).evaluate(episodes).log_probs.detach()
    kl = (episodes.log_probs - reference).sum(dim=1)
    assert [info["kl"] for info in episodes.infos] == pytest.approx(kl.tolist(), abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_with_masks_the_environment_compares_the_policy_with_the_equally_masked_reference(policy, mode, estimator):
    settings = {"kl_penalty": 0.5, "kl_penalty_estimator": estimator, "constraints": [BanTokens(["a", "c"])]}
    episodes = sampled(make_env(mode=mode, reference=small_lm(), **settings), policy, 20)
    assert [info["kl"] for info in episodes.infos] == pytest.approx([0.0] * 20, abs=1e-4)  # the policy is the reference
    episodes = sampled(make_env(mode=mode, reference=small_lm(seed=1), **settings), policy, 20)
    difference = episodes.log_probs - LMPolicy(small_lm(seed=1)).evaluate(episodes).log_probs.detach()
    kl = difference if estimator == "k1" else torch.expm1(-difference) + difference
    kl = torch.where(episodes.mask, kl, 0.0).sum(dim=1)
    assert [info["kl"] for info in episodes.infos] == pytest.approx(kl.tolist(), abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_an_ended_text_may_have_no_valid_action(policy, mode):
    env = make_env(mode=mode, tokenizer=WithoutEos(), constraints=[NothingAfterSixTokens()])
    assert sampled(env, policy, 20).num_steps.tolist() == [6] * 20


def test_actions_other_than_tokens_are_refused(policy):
    with pytest.raises(ValueError, match="needs actions='vocabulary', got Subset"):
        sampled(make_env(actions=Subset(list("gfedcba"))), policy, 8)


def test_another_vocabulary_is_refused(policy):
    with pytest.raises(ValueError, match="the environment has 257 actions, the model a vocabulary of 8"):
        sampled(make_env(tokenizer="byte"), policy, 8)


def test_a_number_of_episodes_below_one_is_refused(policy):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sampled(make_env(), policy, 0)


def test_other_environments_are_refused(policy):
    with pytest.raises(TypeError, match=r"gym\.make_vec"):
        collect(gym.make_vec("CartPole-v1", num_envs=2), policy, 2)


def test_episodes_are_shown_in_one_line(policy):
    episodes = sampled(make_env(), policy, 20)
    tokens, mean = int(episodes.num_steps.sum()), float(episodes.returns.mean())
    assert repr(episodes) == f"Episodes(B=20, T={episodes.rewards.shape[1]}, tokens={tokens}, mean_return={mean:.3g})"


def test_parts_are_concatenated_to_the_whole():
    env = make_env(8, constraints=[BanTokens(["c"])])
    policy = LMPolicy(small_lm())
    whole = collect(env, policy, 24, seed=0, generator=torch.Generator().manual_seed(0), num_alternatives=2)
    order = np.argsort(whole.num_steps.numpy(), kind="stable")
    parts = [whole[order[:5]], whole[order[5:]]]
    short = int(parts[0].num_steps.max())
    assert short < whole.rewards.shape[1]
    for name in ("rewards", "log_probs", "values", "positions", "action_masks"):
        setattr(parts[0], name, getattr(parts[0], name)[:, :short])
    parts[0].stats = type(whole.stats)(*(column[:, :short] for column in parts[0].stats))
    joined, expected = Episodes.concatenate(parts), whole[order]
    for name, value in vars(expected).items():
        found = getattr(joined, name)
        if name == "stats":
            assert all(torch.equal(a, b) for a, b in zip(found, value, strict=True))
        elif isinstance(value, torch.Tensor):
            assert torch.equal(found, value), name
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value)
        else:
            assert found == value, name
    parts[0].advantages = torch.zeros(5, short)
    with pytest.raises(ValueError, match="1 of 2 parts have no advantages"):
        Episodes.concatenate(parts)
    with pytest.raises(ValueError, match="at least one part, got none"):
        Episodes.concatenate([])
