"""Stock PPO, A2C and MaskablePPO with an LM policy: weights, buffers, learning, saving."""

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from fixtures import TOKENIZER, share_of_b, small_lm
from textgym import TextGenEnv, TextGenVecEnv
from textgym.actions import Subset
from textgym.constraints import BanTokens
from textgym.rewards import Redistributed
from textgym_agents import LMPolicy
from textgym_agents.sb3 import (
    EpisodeRolloutBuffer,
    LMActorCriticPolicy,
    LMFeatures,
    MaskableEpisodeRolloutBuffer,
    MaskableLMActorCriticPolicy,
    RedistributeRewards,
    ReportLogProbs,
    export_hf,
)
from textgym_agents.sb3.base import TextStates


def make_env(num_envs=8, **keywords):
    settings = {
        "tokenizer": TOKENIZER, "prompts": ["a", "cab", "dag"], "scorer": share_of_b, "max_new_tokens": 6,
        "max_prompt_tokens": 4,
    }  # fmt: skip
    return VecMonitor(TextGenVecEnv(num_envs, **settings | keywords))


def make(algorithm=PPO, env=None, policy_kwargs=None, **settings):
    """Return an algorithm with our policy and buffer; rollouts of 8 environments x 8 steps cut episodes of 6."""
    masked = algorithm is MaskablePPO
    defaults = {"n_steps": 8, "gamma": 1.0, "seed": 0, "device": "cpu"}
    if algorithm is not A2C:
        defaults |= {"batch_size": 32, "n_epochs": 2}
    return algorithm(
        MaskableLMActorCriticPolicy if masked else LMActorCriticPolicy,
        make_env() if env is None else env,
        policy_kwargs={"model": small_lm()} | (policy_kwargs or {}),
        rollout_buffer_class=MaskableEpisodeRolloutBuffer if masked else EpisodeRolloutBuffer,
        **defaults | settings,
    )


def parameters(model):
    return {name: value.clone() for name, value in model.policy.named_parameters()}


def assert_same(first, second, atol=0.0):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=atol, rtol=0.0)


class KeepRollouts(BaseCallback):
    """Looks at each rollout after it was collected and before it is learned from."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.look(self.model)


# What construction leaves as it was ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_pretrained_weights_survive_construction(algorithm):
    before = small_lm().state_dict()
    model = make(algorithm)
    assert_same(before, dict(model.policy.lm.model.state_dict()))


def test_the_embedded_model_is_built_by_its_name():
    env = TextGenVecEnv(2, max_new_tokens=4, max_prompt_tokens=24)
    model = PPO(LMActorCriticPolicy, env, n_steps=4, batch_size=8, rollout_buffer_class=EpisodeRolloutBuffer)
    assert_same(LMPolicy("tiny").model.state_dict(), dict(model.policy.lm.model.state_dict()))


def test_dropout_stays_off_while_sb3_trains():
    config = GPT2Config(vocab_size=8, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=7, eos_token_id=7)
    model = make(policy_kwargs={"model": GPT2LMHeadModel(config)})
    model.policy.set_training_mode(True)
    assert model.policy.training
    assert not any(module.training for module in model.policy.lm.backbone.modules())


# What the buffer yields ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
@pytest.mark.parametrize("observation", ["tokens", "dict"])
def test_segments_are_evaluated_as_they_were_acted_through_episodes_that_span_rollouts(algorithm, observation):
    errors, sizes = [], []

    def look(model):
        for batch in model.rollout_buffer.get(20):
            masks = {"action_masks": batch.action_masks} if algorithm is MaskablePPO else {}
            values, log_probs, entropies = model.policy.evaluate_actions(batch.observations, batch.actions, **masks)
            errors.append((values - batch.old_values).abs().max().item())
            errors.append((log_probs - batch.old_log_prob).abs().max().item())
            assert entropies.min() >= 0
            assert batch.advantages.shape == batch.returns.shape == log_probs.shape
            sizes.append(len(log_probs))

    constraints = [BanTokens([0, 1])] if algorithm is MaskablePPO else []
    env = make_env(observation=observation, constraints=constraints)
    model = make(algorithm, env)
    model.learn(3 * 64, callback=KeepRollouts(look))
    assert max(errors) < 1e-4
    assert sum(sizes) == 3 * 64
    assert max(sizes) <= 32


def test_a_segment_is_a_text_with_all_its_states():
    def look(model):
        buffer = model.rollout_buffer
        (batch,) = buffer.get(None)
        states = batch.observations
        assert len(states.ids) == buffer.num_segments
        assert (states.rows.diff() >= 0).all()
        inside = states.rows.diff() == 0
        assert (states.columns.diff()[inside] == 1).all()  # one token per state
        # The token after a state is the action in it, as far as the text goes.
        action = batch.actions.flatten()[:-1][inside]
        torch.testing.assert_close(
            states.ids[states.rows, (states.columns + 1).clamp(max=states.ids.shape[1] - 1)][:-1][inside], action
        )
        lengths.append(int(states.prompt_lengths.max()))

    lengths = []
    make().learn(2 * 64, callback=KeepRollouts(look))
    assert lengths[0] <= 4 < lengths[1]  # the second rollout continues texts of the first


def test_each_epoch_has_another_order_and_minibatches_of_nearly_the_same_size():
    def look(model):
        sizes = [len(batch.actions) for batch in model.rollout_buffer.get(16)]
        assert len(sizes) == 4
        assert max(sizes) - min(sizes) <= 12
        first, second = (next(model.rollout_buffer.get(16)).old_log_prob.sum() for _ in range(2))
        assert first != second

    make().learn(64, callback=KeepRollouts(look))


def test_reading_an_unfinished_rollout_raises():
    with pytest.raises(RuntimeError, match="0 of 8 steps"):
        next(make().rollout_buffer.get())


def test_the_rollout_stores_no_window_per_transition():
    model = make(n_steps=128)
    model.learn(1)
    buffer = model.rollout_buffer
    assert buffer.texts.nbytes + buffer.observations.nbytes < 0.5 * 128 * 8 * buffer.window * 8


@pytest.mark.parametrize("time_limit", ["terminated", "truncated"])
def test_an_update_equals_one_with_sb3s_own_buffer_and_a_prefix_per_transition(time_limit):
    # With plain gradient descent the change of the parameters is the gradient of SB3's own loss.
    trained = []
    for buffer in (EpisodeRolloutBuffer, None):
        kwargs = {
            "optimizer_class": torch.optim.SGD,
            "optimizer_kwargs": {},
            "head_lr_scale": 1.0,
            "value_function": "linear",
            "value_gradient": True,
        }
        model = PPO(
            LMActorCriticPolicy, make_env(time_limit=time_limit), rollout_buffer_class=buffer, learning_rate=1.0,
            policy_kwargs={"model": small_lm()} | kwargs, n_steps=9, batch_size=72, n_epochs=1, ent_coef=0.01,
            max_grad_norm=1e9, seed=0, device="cpu",
        )  # fmt: skip
        before = parameters(model)
        model.learn(72)
        trained.append(parameters(model))
    assert max((trained[0][name] - before[name]).abs().max() for name in before) > 1e-3
    assert_same(trained[0], trained[1], atol=1e-5)


# Masks ---------------------------------------------------------------------------------------------------------------


def test_masked_tokens_are_never_written_nor_learned():
    seen = []

    def look(model):
        for batch in model.rollout_buffer.get(16):
            assert batch.action_masks.dtype == torch.bool
            assert not batch.action_masks[:, 1].any()
            assert batch.action_masks[:, 0].all()
            seen.append(batch.actions)

    model = make(MaskablePPO, make_env(constraints=[BanTokens([1])]))
    model.learn(128, callback=KeepRollouts(look))
    assert not (torch.cat(seen) == 1).any()
    observation = model.env.reset()
    masks = np.tile(np.arange(8) == 5, (8, 1))
    assert (model.predict(observation, action_masks=masks)[0] == 5).all()
    assert model.predict(observation[0], action_masks=masks[0])[0] == 5
    distribution = model.policy.get_distribution(torch.as_tensor(observation), masks)
    assert (distribution.distribution.probs[:, 5] == 1).all()


def test_without_masks_maskable_ppo_is_ppo():
    trained = []
    for algorithm in (PPO, MaskablePPO):
        model = make(algorithm)
        model.learn(128)
        trained.append(parameters(model))
    assert_same(*trained)


def test_masks_take_a_bit_per_action():
    buffer = make(MaskablePPO).rollout_buffer
    assert buffer.action_masks.nbytes == 8 * 8 * 1
    buffer.add(np.full((8, 10), 3), *(np.zeros(8) for _ in range(3)), *(torch.zeros(8) for _ in range(2)))
    assert (buffer.action_masks[0] == 255).all()


# Truncated episodes --------------------------------------------------------------------------------------------------


def test_bootstrap_values_are_those_of_an_uncached_forward():
    model = make(env=make_env(time_limit="truncated"), policy_kwargs={"value_function": "prefix"})
    model.learn(256)
    policy, env = model.policy, model.env
    observations, found = env.reset(), 0
    with torch.no_grad():
        for _ in range(12):
            actions, _, _ = policy(torch.as_tensor(observations))
            observations, _, _, infos = env.step(actions.numpy())
            for info in infos:
                if info.get("TimeLimit.truncated"):
                    window = torch.as_tensor(info["terminal_observation"])[None]
                    states = TextStates.of(window, policy.lm.vocab_size)
                    torch.testing.assert_close(policy.predict_values(window), policy.predict_values(states))
                    found += 1
            other = torch.full((1, 10), 3)  # not one of the texts
            assert policy.predict_values(other).shape == (1,)
    assert found


# Determinism, saving, loading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_same_seed_same_parameters(algorithm):
    trained = []
    for seed in (0, 0, 1):
        model = make(algorithm, seed=seed)
        model.learn(192)
        trained.append(parameters(model))
    assert_same(trained[0], trained[1])
    assert not torch.equal(trained[0]["lm.value_head.token_values"], trained[2]["lm.value_head.token_values"])


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_a_loaded_model_is_the_saved_one_and_continues_exactly(algorithm, tmp_path):
    model = make(algorithm)
    model.learn(128)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    assert_same(parameters(model), parameters(loaded))
    observations = make_env().reset()
    np.testing.assert_array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))
    for one in (model, loaded):  # the environment's and the global generators' state are not SB3's to keep
        env = make_env()
        env.seed(3)
        one.set_env(env)
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        one.learn(128, reset_num_timesteps=False)
    assert loaded.num_timesteps == model.num_timesteps
    assert_same(parameters(model), parameters(loaded))


def test_a_zip_of_a_named_model_holds_the_weights_once(tmp_path):
    env = TextGenVecEnv(2, max_new_tokens=4, max_prompt_tokens=24)
    model = PPO(LMActorCriticPolicy, env, n_steps=4, batch_size=8, rollout_buffer_class=EpisodeRolloutBuffer)
    model.save(tmp_path / "model")
    weights = sum(value.nbytes for value in parameters(model).values())
    assert (tmp_path / "model.zip").stat().st_size < 1.1 * weights


def test_the_policy_alone_can_be_saved(tmp_path):
    policy = make().policy
    policy.save(tmp_path / "policy")
    loaded = LMActorCriticPolicy.load(tmp_path / "policy", device="cpu")
    assert_same(dict(policy.named_parameters()), dict(loaded.named_parameters()))


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # of SB3's progress bar
def test_callbacks_and_logs_work(tmp_path):
    model = make(tensorboard_log=str(tmp_path / "logs"))
    callbacks = [
        EvalCallback(make_env(2), eval_freq=8, n_eval_episodes=4, best_model_save_path=str(tmp_path), verbose=0),
        CheckpointCallback(8, str(tmp_path / "checkpoints")),
    ]
    model.learn(128, callback=callbacks, progress_bar=True)
    assert (tmp_path / "best_model.zip").exists()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert list((tmp_path / "logs").rglob("events*"))
    mean, _ = evaluate_policy(model, make_env(), n_eval_episodes=16)
    assert 0 <= mean <= 1


def test_evaluation_does_not_change_the_training():
    trained = []
    for callback in (None, EvalCallback(make_env(3), eval_freq=5, n_eval_episodes=4, verbose=0)):
        model = make()
        model.learn(192, callback=callback)
        trained.append(parameters(model))
    assert_same(*trained)


# The optimizer -------------------------------------------------------------------------------------------------------


def test_the_head_learns_faster_under_sb3s_schedule():
    kwargs = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}}
    moved = []
    for scale in (1.0, 10.0):
        model = make(A2C, policy_kwargs=kwargs | {"head_lr_scale": scale}, learning_rate=lambda _: 0.1)
        before = parameters(model)
        model.learn(64)
        after = parameters(model)
        moved.append({name: after[name] - before[name] for name in after})
        assert [group["lr"] for group in model.policy.optimizer.param_groups] == [0.1, 0.1]  # as SB3 wrote it
    head = "lm.value_head.length_values"
    torch.testing.assert_close(moved[1].pop(head), 10 * moved[0].pop(head))
    body = "lm.backbone.model.transformer.wte.weight"
    torch.testing.assert_close(moved[1][body], moved[0][body])


def test_a_fused_optimizer_raises():
    with pytest.raises(ValueError, match="leave out fused=True"):
        make(policy_kwargs={"optimizer_kwargs": {"fused": True}})


def test_trainable_layers_limits_the_training():
    model = make(policy_kwargs={"trainable_layers": 1})
    before = parameters(model)
    model.learn(64)
    after = parameters(model)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".h.1." in name or "ln_f" in name or "value_head" in name for name in changed)


# The KL in the environment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callback", [None, ReportLogProbs()])
def test_the_kl_penalty_is_the_kl_only_with_reported_log_probs(callback):
    env = make_env(kl_penalty=0.1, reference=small_lm(), scorer=lambda completion: 0.0)
    model = make(env=env)  # it is the reference, as long as it has not learned
    model.learn(64, callback=callback)
    penalties = [info["r"] for info in model.ep_info_buffer]
    if callback is None:
        assert np.mean(penalties) < -0.5
    else:
        np.testing.assert_allclose(penalties, 0.0, atol=1e-4)
        assert model.policy.on_log_probs is None


def test_log_probs_are_reported_to_single_environments():
    settings = {
        "tokenizer": TOKENIZER, "prompts": ["a", "cab", "dag"], "scorer": lambda completion: 0.0, "max_new_tokens": 6,
        "max_prompt_tokens": 4, "kl_penalty": 0.1, "reference": small_lm(), "render_mode": None,
    }  # fmt: skip
    model = make(env=make_vec_env("TextGen-v0", 3, env_kwargs=settings), batch_size=24)
    model.learn(24, callback=ReportLogProbs())  # one rollout: the model is the reference until it has learned
    np.testing.assert_allclose([info["r"] for info in model.ep_info_buffer], 0.0, atol=1e-4)


def test_reporting_needs_our_policy_and_environment():
    model = PPO("MlpPolicy", make_env(), n_steps=8, batch_size=64, device="cpu")
    with pytest.raises(TypeError, match="needs an LMActorCriticPolicy, got ActorCriticPolicy"):
        model.learn(64, callback=ReportLogProbs())
    callback = ReportLogProbs()
    callback.model = make()
    callback.model.env = make_vec_env("CartPole-v1")
    with pytest.raises(AttributeError, match="needs an environment with set_log_probs"):
        callback.on_training_start({}, {})


# Redistributed rewards -----------------------------------------------------------------------------------------------


class KeepSteps(BaseCallback):
    """Records rewards and infos before other callbacks change them."""

    def __init__(self):
        super().__init__()
        self.rewards, self.dones, self.infos = [], [], []

    def _on_step(self):
        for kept, name in ((self.rewards, "rewards"), (self.dones, "dones"), (self.infos, "infos")):
            kept.append(np.array(self.locals[name]))
        return True


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
@pytest.mark.parametrize("normalised", [False, True])
def test_each_step_of_a_rollout_gets_its_token_reward(algorithm, normalised):
    env = make_env(reward="redistributed")
    if normalised:
        env = VecNormalize(env, norm_obs=False, gamma=1.0)
    given, checked = KeepSteps(), []

    def look(model):
        rewards, dones, infos = (np.array(kept[-8:]) for kept in (given.rewards, given.dones, given.infos))
        expected = rewards.copy()
        starts = np.zeros(8, dtype=int)
        for step, slot in np.argwhere(dones):
            num_steps = step + 1 - starts[slot]
            shares = infos[step, slot]["token_rewards"]
            score = infos[step, slot]["score"]
            share = rewards[step, slot] / len(shares)  # the credit is uniform
            assert shares == pytest.approx([score / len(shares)] * len(shares))
            expected[starts[slot] : step, slot] = share
            expected[step, slot] -= (num_steps - 1) * share  # with what earlier rollouts wrote
            starts[slot] = step + 1
            checked.append(num_steps - len(shares))
        np.testing.assert_allclose(model.rollout_buffer.rewards, expected, atol=1e-6)

    model = make(algorithm, env)
    model.learn(3 * 64, callback=[given, RedistributeRewards(), KeepRollouts(look)])
    assert min(checked) < 0 == max(checked)  # texts that earlier rollouts began, and whole ones


@pytest.mark.parametrize("final_info", ["numbers", "none"])
@pytest.mark.parametrize("kind", ["batched", "single"])
def test_redistributing_needs_the_whole_info_of_an_episode(kind, final_info):
    if kind == "batched":
        env = make_env(reward="redistributed", final_info=final_info)
    else:
        env = DummyVecEnv([lambda: TextGenEnv(final_info=final_info)] * 2)
    with pytest.raises(ValueError, match=f"final_info='{final_info}'.* make the environment with final_info='full'"):
        PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu").learn(8, callback=RedistributeRewards())


@pytest.mark.parametrize("on_invalid_action", ["ignore", "terminate"])
def test_invalid_actions_get_no_token_reward(on_invalid_action):
    env = make_env(
        reward=Redistributed(lambda score, texts, finals: [np.arange(n, dtype=float) for n in texts.num_new_tokens]),
        constraints=BanTokens([1]), on_invalid_action=on_invalid_action, invalid_action_penalty=0.0,
    )  # fmt: skip
    given, checked = KeepSteps(), []

    def look(model):
        dones, infos = np.array(given.dones[-8:]), given.infos[-8:]
        ends = np.argwhere(dones)
        for step, slot in ends:
            first = max((end + 1 for end, other in ends if other == slot and end < step), default=0)
            rewards = model.rollout_buffer.rewards[first : step + 1, slot]
            written = np.array(["invalid_action" not in infos[t][slot] for t in range(first, step + 1)])
            if first > 0 and written.any() and not written.all():
                np.testing.assert_allclose(np.diff(rewards[written]), 1.0, atol=1e-6)
                assert (rewards[~written] == 0).all()
                checked.append(step)

    make(PPO, env).learn(8 * 64, callback=[given, RedistributeRewards(), KeepRollouts(look)])
    assert len(checked) > 2


def test_redistributing_needs_an_algorithm_with_rollouts():
    model = DQN("MlpPolicy", make_env(), device="cpu")
    with pytest.raises(TypeError, match=r"needs an algorithm that learns from rollouts, .* got DQN"):
        model.learn(8, callback=RedistributeRewards())


# Export --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, 2])
@pytest.mark.parametrize("from_zip", [False, True])
def test_an_export_is_the_trained_model(from_zip, lora, tmp_path):
    source = tmp_path / "source"
    small_lm().save_pretrained(source)
    model = make(policy_kwargs={"model": str(source), "lora": lora})
    model.learn(64)
    model.save(tmp_path / "model")
    for file in source.iterdir():
        file.unlink()  # a zip has to be enough
    export_hf(tmp_path / "model.zip" if from_zip else model, tmp_path / "exported")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    ids = torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(exported(ids).logits, model.policy.lm.model(ids).logits)
    policy = LMPolicy.from_pretrained(tmp_path / "exported")
    torch.testing.assert_close(policy.value_head.token_values, model.policy.lm.value_head.token_values)


def test_an_exported_folder_replaces_a_missing_source(tmp_path):
    source = tmp_path / "source"
    small_lm().save_pretrained(source)
    model = make(policy_kwargs={"model": str(source)})
    model.save(tmp_path / "model")
    source.rename(tmp_path / "gone")
    export_hf(tmp_path / "model", tmp_path / "exported")
    kwargs = {"model": str(tmp_path / "exported")}
    loaded = PPO.load(tmp_path / "model", custom_objects={"policy_kwargs": kwargs}, device="cpu")
    assert_same(parameters(model), parameters(loaded))


def test_the_tokenizer_of_the_embedded_model_is_exported(tmp_path):
    env = TextGenVecEnv(2, max_new_tokens=4, max_prompt_tokens=24)
    model = PPO(LMActorCriticPolicy, env, n_steps=4, batch_size=8, rollout_buffer_class=EpisodeRolloutBuffer)
    model.save(tmp_path / "model")
    export_hf(tmp_path / "model.zip", tmp_path / "exported")
    exported = TextGenVecEnv(1, model=str(tmp_path / "exported"), max_prompt_tokens=24).tokenizer
    tokens = range(env.tokenizer.vocab_size)
    assert list(map(exported.token_text, tokens)) == list(map(env.tokenizer.token_text, tokens))
    assert exported.vocab_size == env.tokenizer.vocab_size


def test_only_a_language_model_is_exported(tmp_path):
    model = PPO("MlpPolicy", make_env(), n_steps=8, batch_size=64, device="cpu")
    with pytest.raises(TypeError, match="got ActorCriticPolicy"):
        export_hf(model, tmp_path / "exported")
    model.save(tmp_path / "model")
    with pytest.raises(TypeError, match="got ActorCriticPolicy"):
        export_hf(tmp_path / "model.zip", tmp_path / "exported")
    with pytest.raises(FileNotFoundError, match=r"other\.zip does not exist"):
        export_hf(tmp_path / "other", tmp_path / "exported")
    model.policy.save(tmp_path / "policy.zip")  # a zip too, as torch writes them
    with pytest.raises(ValueError, match="not a file that an algorithm of Stable-Baselines3 saved"):
        export_hf(tmp_path / "policy.zip", tmp_path / "exported")


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (lambda: make_env(tokenizer="byte"), ValueError, "a vocabulary of .*, the model one of 8; .*same model"),
        (lambda: make_env(actions=Subset(["a", "b"])), ValueError, "3 actions, the model a vocabulary of 8"),
        (lambda: make_env(max_new_tokens=70), ValueError, "window is 74 tokens, but GPT2LMHeadModel has 64 positions"),
        (lambda: "CartPole-v1", TypeError, r"needs token ids, a space Box\(0, V, \(L,\), int64\) .*got Box"),
    ],
)
def test_an_incompatible_environment_raises(env, error, message):
    with pytest.raises(error, match=message):
        make(A2C, env=env())


@pytest.mark.parametrize("wrapper", [VecNormalize, lambda env: VecFrameStack(env, 2)])
def test_a_wrapper_that_changes_the_ids_raises(wrapper):
    with pytest.raises(ValueError, match="token ids from 0, right-padded with 8, but a wrapper changes"):
        make(env=wrapper(make_env())).learn(64)


def test_rewards_can_be_normalised():
    env = VecNormalize(make_env(), norm_obs=False, gamma=1.0)
    make(env=env).learn(64)
    assert env.ret_rms.count > 64


def test_continuous_actions_raise():
    import gymnasium as gym

    windows = gym.spaces.Box(0, 8, (10,), np.int64)
    with pytest.raises(TypeError, match=r"a space Discrete\(8\), got Box"):
        LMActorCriticPolicy(windows, gym.spaces.Box(0, 1), lambda _: 0.0, model=small_lm())
    with pytest.raises(ValueError, match="continuous actions"):
        LMActorCriticPolicy(windows, gym.spaces.Discrete(8), lambda _: 0.0, model=small_lm(), use_sde=True)


# Features ------------------------------------------------------------------------------------------------------------


def test_features_survive_and_stay_out_of_the_state_dict():
    kwargs = {"features_extractor_class": LMFeatures, "features_extractor_kwargs": {"model": small_lm()}}
    model = PPO(
        "MlpPolicy", make_env(), n_steps=8, batch_size=32, n_epochs=2, policy_kwargs=kwargs, seed=0, device="cpu"
    )
    model.learn(128)
    extractor = model.policy.features_extractor
    assert_same(small_lm().state_dict(), dict(extractor.backbone.model.state_dict()))
    assert not any("features_extractor" in name for name in model.policy.state_dict())


def test_cached_and_uncached_features_are_the_hidden_states(tmp_path):
    env = make_env()
    extractor = LMFeatures(env.observation_space, model=small_lm())
    observations = env.reset()
    for _ in range(14):
        windows = torch.as_tensor(observations)
        states = TextStates.of(windows, 8)
        expected = extractor.backbone.states(states.ids, states.rows, states.columns)[1]
        torch.testing.assert_close(extractor(windows.float()), expected, atol=1e-5, rtol=1e-5)
        observations, *_ = env.step(np.array([env.action_space.sample() for _ in range(8)]))


def test_features_of_a_dict_are_those_of_its_ids():
    kwargs = {"features_extractor_class": LMFeatures, "features_extractor_kwargs": {"model": small_lm()}}
    settings = {"n_steps": 8, "batch_size": 32, "n_epochs": 1, "policy_kwargs": kwargs, "seed": 0, "device": "cpu"}
    trained = []
    for policy, observation in (("MlpPolicy", "tokens"), ("MultiInputPolicy", "dict")):
        model = PPO(policy, make_env(observation=observation), **settings)
        model.learn(64)
        trained.append(parameters(model))
    assert_same(*trained)


def test_features_survive_saving(tmp_path):
    kwargs = {"features_extractor_class": LMFeatures, "features_extractor_kwargs": {"model": "tiny"}}
    env = TextGenVecEnv(2, max_new_tokens=4, max_prompt_tokens=24, actions=Subset([" happy", " sad"]))
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=8, policy_kwargs=kwargs, device="cpu")
    model.learn(8)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    observations = env.reset()
    np.testing.assert_array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))


# Learning ------------------------------------------------------------------------------------------------------------

SETTINGS = {
    PPO: {"n_steps": 48, "batch_size": 96, "n_epochs": 4, "learning_rate": 2e-3, "ent_coef": 0.01},
    A2C: {"n_steps": 24, "learning_rate": 2e-3, "normalize_advantage": True, "use_rms_prop": False},
    MaskablePPO: {"n_steps": 48, "batch_size": 96, "n_epochs": 4, "learning_rate": 2e-3, "ent_coef": 0.01},
}


@pytest.mark.parametrize("seed", [1])  # benchmarks/probe_ladder.py takes three
@pytest.mark.parametrize(
    "algorithm", [pytest.param(PPO, marks=pytest.mark.slow), A2C, pytest.param(MaskablePPO, marks=pytest.mark.slow)]
)
def test_it_learns(algorithm, seed):
    model = make(algorithm, seed=seed, **SETTINGS[algorithm])
    test_env = make_env()
    test_env.seed(0)
    assert evaluate_policy(model, test_env, n_eval_episodes=64, deterministic=False)[0] < 0.4
    model.learn(8_000)
    assert evaluate_policy(model, test_env, n_eval_episodes=64, deterministic=False)[0] >= 0.9


@pytest.mark.slow
def test_features_are_enough_to_learn():
    kwargs = {"features_extractor_class": LMFeatures, "features_extractor_kwargs": {"model": small_lm()}}
    model = PPO(
        "MlpPolicy", make_env(), n_steps=48, batch_size=96, n_epochs=4, learning_rate=3e-3, gamma=1.0, seed=0,
        policy_kwargs=kwargs, device="cpu",
    )  # fmt: skip
    model.learn(8_000)
    assert evaluate_policy(model, make_env(), n_eval_episodes=64, deterministic=True)[0] >= 0.9
