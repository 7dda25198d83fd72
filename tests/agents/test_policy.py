"""LMPolicy: cached steps agree with one forward over whole episodes."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures import TOKENIZER, make_env, small_lm, small_q_policy
from textgym.constraints import BanTokens, MinNewTokens
from textgym_agents import LMPolicy, collect


@pytest.fixture
def policy():
    policy = LMPolicy(small_lm(), value_function="linear")
    torch.nn.init.normal_(policy.value_head.weight)
    return policy


def head(policy, hidden):
    return torch.nn.functional.linear(hidden, policy.value_head.weight, policy.value_head.bias).item()


def episodes_of(policy, num_episodes=12, **keywords):
    return collect(make_env(**keywords), policy, num_episodes, seed=0, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("constraints", [(), [BanTokens(["c"]), MinNewTokens(3)]])
def test_whole_episode_log_probs_equal_those_of_acting(policy, constraints):
    episodes = episodes_of(policy, constraints=constraints)
    evaluation = policy.evaluate(episodes)
    torch.testing.assert_close(evaluation.log_probs.detach(), episodes.log_probs, atol=1e-4, rtol=0)


def test_values_entropies_and_last_values_equal_a_forward_over_each_prefix(policy):
    episodes = episodes_of(policy)
    episodes.truncated[::2] = True
    evaluation, last_values = policy.evaluate(episodes), policy.last_values(episodes)
    for b in range(len(episodes)):
        for t in range(int(episodes.num_steps[b]) + 1):
            prefix = episodes.ids[b, : episodes.prompt_lengths[b] + t][None]
            with torch.no_grad():
                output = policy.model(prefix, output_hidden_states=True)
                value = head(policy, output.hidden_states[-1][0, -1])
            if t == episodes.num_steps[b]:
                assert last_values[b].item() == pytest.approx(value if episodes.truncated[b] else 0.0, abs=1e-5)
            else:
                entropy = torch.distributions.Categorical(logits=output.logits[0, -1]).entropy().item()
                assert evaluation.values[b, t].item() == pytest.approx(value, abs=1e-5)
                assert evaluation.entropies[b, t].item() == pytest.approx(entropy, abs=1e-5)


def test_whole_episode_gradients_equal_those_of_one_forward_per_transition(policy):
    episodes = episodes_of(policy)
    weights = torch.randn(episodes.rewards.shape, generator=torch.Generator().manual_seed(0)) * episodes.mask
    (policy.evaluate(episodes).log_probs * weights).sum().backward()
    whole = {name: p.grad.clone() for name, p in policy.model.named_parameters()}
    policy.zero_grad()
    for b in range(len(episodes)):
        for t in range(int(episodes.num_steps[b])):
            end = episodes.prompt_lengths[b] + t
            log_probs = policy.model(episodes.ids[b, :end][None]).logits[0, -1].log_softmax(-1)
            (weights[b, t] * log_probs[episodes.ids[b, end]]).backward()
    for name, p in policy.model.named_parameters():
        torch.testing.assert_close(p.grad, whole[name], atol=1e-5, rtol=1e-4)


def test_the_value_head_sends_no_gradient_into_the_language_model(policy):
    policy.evaluate(episodes_of(policy)).values.sum().backward()
    assert policy.value_head.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in policy.model.parameters())


def test_the_value_head_shapes_the_language_model_where_asked_to():
    policy = LMPolicy(small_lm(), value_function="linear", value_gradient=True)
    torch.nn.init.normal_(policy.value_head.weight)
    policy.evaluate(episodes_of(policy)).values.sum().backward()
    assert all(p.grad is not None for name, p in policy.model.named_parameters() if "wte" not in name)


def test_values_while_acting_are_those_of_the_evaluation(policy):
    episodes = episodes_of(policy)
    torch.testing.assert_close(policy.evaluate(episodes).values.detach(), episodes.values, atol=1e-5, rtol=0)


def test_a_part_of_the_episodes_agrees_with_the_whole(policy):
    episodes = episodes_of(policy, constraints=[BanTokens(["c"])])
    whole = policy.evaluate(episodes)
    index = np.array([5, 0, 3])
    part = policy.evaluate(episodes[index])
    torch.testing.assert_close(part.log_probs, whole.log_probs[index], atol=1e-6, rtol=0)
    torch.testing.assert_close(part.values, whole.values[index], atol=1e-6, rtol=0)


def test_entropies_carry_gradients_only_where_asked_for(policy):
    episodes = episodes_of(policy)
    assert not policy.evaluate(episodes).entropies.requires_grad
    assert policy.evaluate(episodes, entropy_gradient=True).entropies.requires_grad


def test_entropy_gradient_is_finite_under_masks(policy):
    episodes = episodes_of(policy, constraints=[BanTokens(["c", "d"])])
    policy.evaluate(episodes, entropy_gradient=True).entropies.sum().backward()
    assert all(p.grad.isfinite().all() for p in policy.model.parameters())


def test_masked_tokens_are_never_chosen(policy):
    episodes = episodes_of(policy, 64, constraints=[BanTokens(["c", "d"])])
    assert not {"c", "d"} & set("".join(info["completion"] for info in episodes.infos))


def test_acting_deterministically_takes_the_likeliest_token(policy):
    ids = np.array([[0, 1, 8, 8], [2, 3, 4, 8]])
    actions = policy.act(ids, deterministic=True).actions
    for i, length in enumerate((2, 3)):
        with torch.no_grad():
            assert actions[i] == policy.model(torch.tensor(ids[i, :length][None])).logits[0, -1].argmax()


def test_acting_follows_a_training_step(policy):
    episodes = episodes_of(policy)
    ids = np.array([[0, 1, 8, 8]])
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    before = policy.act(ids, deterministic=True).log_probs
    policy.evaluate(episodes).log_probs.sum().backward()
    optimizer.step()
    after = policy.act(ids, deterministic=True)
    with torch.no_grad():
        log_probs = policy.model(torch.tensor(ids[:, :2])).logits[0, -1].log_softmax(-1)
    assert after.log_probs[0] == pytest.approx(log_probs.max().item(), abs=1e-5)
    assert after.log_probs[0] != before[0]


def test_sampling_from_a_diverged_model_raises(policy):
    ids = np.array([[0, 1, 8, 8]])
    policy.act(ids)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"logits.* are NaN"):
        policy.act(ids)


def test_a_frozen_copy_stays_as_it_is(policy):
    twin = policy.frozen_copy()
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.add_(1.0)
    assert not any(p.requires_grad for p in twin.parameters())
    assert not torch.equal(twin.model.get_input_embeddings().weight, policy.model.get_input_embeddings().weight)


def test_a_saved_policy_is_a_plain_hugging_face_folder(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded = LMPolicy.from_pretrained(tmp_path)
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor)
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert torch.equal(loaded.value_head.weight, policy.value_head.weight)


def test_dropout_of_a_model_in_training_mode_is_switched_off():
    model = small_lm()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    policy = LMPolicy(model.train())
    episodes = episodes_of(policy)
    torch.testing.assert_close(policy.evaluate(episodes).log_probs.detach(), episodes.log_probs, atol=1e-4, rtol=0)
    twin = policy.frozen_copy().evaluate(episodes)
    torch.testing.assert_close(twin.log_probs, episodes.log_probs, atol=1e-4, rtol=0)


def test_acting_follows_a_cast_of_the_weights(policy):
    policy.act(np.array([[0, 1, 8, 8]]))
    policy.double()
    after = policy.act(np.array([[0, 1, 2, 8]]), deterministic=True).log_probs[0]
    with torch.no_grad():
        log_probs = policy.model(torch.tensor([[0, 1, 2]])).logits[0, -1].log_softmax(-1)
    assert after == pytest.approx(log_probs.max().item(), abs=1e-5)


def test_a_model_without_origin_is_saved_without_the_tokenizer_of_the_working_directory(policy, tmp_path, monkeypatch):
    LMPolicy("tiny").save_pretrained(tmp_path / "tiny")
    assert (tmp_path / "tiny" / "tokenizer.json").exists()
    monkeypatch.chdir(tmp_path / "tiny")
    for name in ("", "no-such/model"):
        policy.model.config._name_or_path = name
        policy.save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved" / "tokenizer.json").exists()


def test_the_small_vocabulary_is_as_wide_as_the_model():
    assert TOKENIZER.vocab_size == small_lm().config.vocab_size


def test_keywords_of_a_backbone_are_refused_where_one_is_given():
    with pytest.raises(TypeError, match="lora: a keyword of LMBackbone"):
        LMPolicy(LMPolicy(small_lm()).backbone, lora=4)


def test_a_policy_of_another_class_is_not_loaded(tmp_path):
    small_q_policy().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds another policy than LMPolicy: its settings are .*'q_from'"):
        LMPolicy.from_pretrained(tmp_path)
