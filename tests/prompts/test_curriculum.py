"""Curriculum: changes of level, state, and use in environments."""

import copy
import json

import numpy as np
import pytest

import textgym
from fixtures import TOKENIZER, small_lm
from textgym.prompts import Curriculum, ListPrompts, Sample
from textgym.tasks import TASKS
from textgym_agents import LMPolicy, Reinforce, ReinforceConfig

LEVELS = [ListPrompts(["easy"]), ListPrompts(["middle"]), ListPrompts(["hard"])]
RNG = np.random.default_rng(0)


def curriculum(**settings):
    return Curriculum(LEVELS, **({"patience": 4, "review_share": 0.0} | settings))


def observe(source, scores, stage=None):
    """Observe ended episodes of the current level, or of ``stage``."""
    sample = Sample("", metadata={"stage": source.level if stage is None else stage})
    source.observe([sample] * len(scores), np.array(scores, dtype=np.float64))


def test_training_starts_at_the_first_level_and_samples_hold_their_stage():
    sample = curriculum().draw(RNG)
    assert (sample.prompt, sample.metadata) == ("easy", {"stage": 1})


def test_the_success_rate_is_a_moving_average_from_zero():
    source = curriculum()
    observe(source, [1, 0, 1])
    # 1/4, then 3/16, then 3/16 + (1 - 3/16) / 4
    assert source.success_rate == pytest.approx(25 / 64)


def test_the_level_rises_above_promote_at():
    source = curriculum(promote_at=0.7)
    observe(source, [1, 1, 1, 1])  # 1 - (3/4)^4 = 0.684
    assert source.level == 1
    observe(source, [1])
    assert (source.level, source.success_rate, source.num_observed) == (2, 0.0, 0)
    assert source.draw(RNG).prompt == "middle"


def test_episodes_of_the_previous_level_are_ignored_after_a_change():
    source = curriculum()
    observe(source, [1] * 5)
    observe(source, [1] * 50, stage=1)
    assert (source.level, source.num_observed) == (2, 0)


def test_the_last_level_does_not_rise():
    source = curriculum()
    for _ in range(3):
        observe(source, [1] * 5)
    assert (source.level, source.success_rate > 0.7) == (3, True)


def test_the_level_falls_below_demote_at_after_four_times_the_patience():
    source = curriculum(demote_at=0.1)
    observe(source, [1] * 5)
    observe(source, [0] * 15)
    assert source.level == 2
    observe(source, [0])
    assert (source.level, source.num_observed) == (1, 0)
    observe(source, [0] * 50)
    assert source.level == 1


def test_a_success_is_a_score_of_at_least_success_score():
    source = curriculum(success_score=0.5)
    observe(source, [0.5, 0.49])
    assert (source.num_observed, source.success_rate) == (2, 0.25 * 0.75)


def test_nan_scores_are_ignored():
    source = curriculum()
    observe(source, [np.nan, np.nan])
    assert source.num_observed == 0


def test_samples_of_other_sources_are_ignored():
    source = curriculum()
    source.observe([Sample("given to reset")], np.ones(1))
    assert source.num_observed == 0


def test_review_share_draws_easier_levels_uniformly():
    source = curriculum(review_share=0.4)
    observe(source, [1] * 5)
    observe(source, [1] * 5)
    drawn = [source.draw(RNG).prompt for _ in range(2000)]
    assert drawn.count("hard") == pytest.approx(1200, abs=80)
    assert drawn.count("middle") == pytest.approx(400, abs=70)
    assert drawn.count("easy") == pytest.approx(400, abs=70)


def test_the_first_level_has_nothing_to_review():
    source = curriculum(review_share=0.9)
    assert {source.draw(RNG).prompt for _ in range(50)} == {"easy"}


def test_the_state_survives_json():
    source = curriculum()
    observe(source, [1] * 5)
    observe(source, [1, 0])
    state = json.loads(json.dumps(source.get_state()))
    assert state == {"level": 2, "success_rate": 0.25 * 0.75, "num_observed": 2}
    twin = curriculum()
    twin.set_state(state)
    assert twin.get_state() == source.get_state()
    observe(source, [1, 1, 1]), observe(twin, [1, 1, 1])
    assert twin.get_state() == source.get_state()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": []}, "needs at least one level"),
        ({"promote_at": 1.0}, "expected 0 <= demote_at < promote_at < 1, got 0.1 and 1.0"),
        ({"demote_at": 0.8}, "expected 0 <= demote_at < promote_at < 1, got 0.8 and 0.7"),
        ({"demote_at": -0.1}, "expected 0 <= demote_at"),
        ({"patience": 0}, "expected patience >= 1 and 0 <= review_share < 1, got 0 and 0.2"),
        ({"review_share": 1.0}, "got 128 and 1.0"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**({"levels": LEVELS} | settings))


def test_a_state_of_a_missing_level_is_rejected():
    with pytest.raises(ValueError, match="level 7, but this curriculum has 3 levels"):
        curriculum().set_state({"level": 7, "success_rate": 0.0, "num_observed": 0})


# In an environment ----------------------------------------------------------------------------------------------------


def vector(num_envs=8, **keywords):
    return textgym.TextGenVectorEnv(num_envs, autoreset_mode="SameStep", task="qa", level="auto", **keywords)


def play(env, num_steps, best):
    """Play the best answers, or random tokens, for ``num_steps`` steps."""
    rng, core = np.random.default_rng(0), env.core
    for _ in range(num_steps):
        if best:
            texts = [" " + TASKS["qa"].optimal_turn(sample) for sample in core.samples]
            answers = [[*env.tokenizer.encode(text), env.eos_token_id] for text in texts]
            actions = [answer[step] for answer, step in zip(answers, core.steps.tolist(), strict=True)]
        else:
            actions = rng.integers(env.num_actions, size=core.num_envs)
        env.step(np.array(actions))


def level(env):
    return env.get_training_state()["prompts"]["level"]


def test_the_level_rises_with_the_optimal_policy_and_stays_with_a_random_one():
    env = vector(32)
    env.reset(seed=0)
    play(env, 100, best=False)
    assert (level(env), env.get_training_state()["prompts"]["success_rate"]) == (1, 0.0)
    play(env, 16, best=False)
    env.reset(seed=1)
    levels = []
    for _ in range(12):
        play(env, 10, best=True)
        levels.append(level(env))
    assert levels == sorted(levels)
    assert levels[-1] == 3
    drawn = {sample.metadata["level"] for sample in env.core.samples}
    assert drawn == {1, 2, 3}  # the hardest, and some review


def test_a_clone_has_its_own_curriculum():
    env = vector(32)
    env.reset(seed=0)
    twin = env.clone()
    play(twin, 35, best=True)
    assert level(twin) == 2
    assert env.get_training_state()["prompts"] == {"level": 1, "success_rate": 0.0, "num_observed": 0}


def test_a_snapshot_restores_the_level():
    env = vector(32)
    env.reset(seed=0)
    play(env, 10, best=True)
    state = env.get_state()
    kept = copy.deepcopy(state["prompts"])
    play(env, 35, best=True)
    assert state["prompts"] == kept
    elsewhere = vector(32)
    elsewhere.set_state(state)
    for twin in (env, elsewhere):
        twin.set_state(state)
        assert twin.get_training_state()["prompts"] == kept
    play(env, 30, best=True), play(elsewhere, 30, best=True)
    assert env.get_training_state() == elsewhere.get_training_state()
    assert level(env) > kept["level"] == 1


def test_environments_do_not_share_a_curriculum():
    env, other = vector(32), vector(32)
    env.reset(seed=0), other.reset(seed=0)
    play(env, 35, best=True)
    assert (level(env), level(other)) == (2, 1)


def test_an_agents_checkpoint_restores_the_level(tmp_path):
    def env():
        source = Curriculum([ListPrompts(["a"]), ListPrompts(["b"])], success_score=0.0, patience=4)
        return textgym.TextGenVectorEnv(
            4, autoreset_mode="SameStep", tokenizer=TOKENIZER, prompts=source, scorer="length_band", max_new_tokens=4
        )

    agent = Reinforce(LMPolicy(small_lm()), env(), ReinforceConfig(num_episodes=8, kl_coef=0.0))
    agent.learn(1)
    agent.save(tmp_path / "agent")
    fresh = env()
    Reinforce.load(tmp_path / "agent", fresh)
    saved = agent.env.get_training_state()["prompts"]
    assert fresh.get_training_state()["prompts"] == saved
    assert saved["level"] == 2
