"""Failing scorers with each value of ``on_scorer_error``, in all three interfaces: nothing that was written is lost."""

import pickle
import threading

import numpy as np
import pytest

from textgym import PromptsExhaustedError, ScorerError, TextGenEnv, TextGenVecEnv, TextGenVectorEnv
from textgym.batch import TextBatch
from textgym.observations import TokenWindow
from textgym.scorers import TimeLimit, as_scorer, evaluate
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
A, B, C = CHAR.encode("abc")


class PanicException(BaseException):
    """Derives from BaseException, as pyo3_runtime.PanicException of Rust extensions does."""


class Faulty:
    """The number of characters, until something is wrong."""

    name = "faulty"

    def __init__(self):
        self.fault = None
        self.only_prompts = False  # whether the fault concerns texts without a completion, and no others
        self.release = threading.Event()

    def __call__(self, batch):
        if self.fault is None or (self.only_prompts and batch.num_new_tokens.any()):
            return [float(len(text)) for text in batch.completions]
        size = len(batch)
        if self.fault == "raises":
            raise RuntimeError("the model is away")
        if self.fault == "panics":
            raise PanicException("index out of bounds")
        if self.fault == "hangs":
            self.release.wait()
        results = {"NaN": [np.nan] * size, "too few": [1.0] * (size - 1), "text": ["good"] * size}
        return results.get(self.fault, [np.inf] * size)


MESSAGES = {
    "raises": "scorer 'faulty' raised RuntimeError: the model is away",
    "panics": "scorer 'faulty' raised PanicException: index out of bounds",
    "NaN": "scorer 'faulty' gave no score",
    "too few": "scorer 'faulty' returned 0 scores for 1 episodes",
    "text": "scorer 'faulty' returned \\['good'\\], expected 1 numbers",
    "infinity": "scorer 'faulty' gave inf for episode 0 of 1, completion 'a'",
    "hangs": "scorer 'faulty' raised TimeoutError: no scores for 1 texts within 0.02 seconds",
}


class Bench:
    """An interface, and its scorer, which fails on demand."""

    def __init__(self, interface, **kwargs):
        self.scorer = Faulty()
        self.limit = TimeLimit(self.scorer, seconds=60)
        keywords = {"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 8, "scorer": self.limit} | kwargs
        self.interface = interface
        self.num_envs = 1 if interface == "single" else 2
        if interface == "single":
            self.env = TextGenEnv(**keywords)
        elif interface == "sb3":
            from textgym import TextGenVecEnv

            self.env = TextGenVecEnv(2, **keywords)
        else:
            self.env = TextGenVectorEnv(2, autoreset_mode=interface, **keywords)
        self.env.reset()

    def set_fault(self, fault, only_prompts=False):
        self.scorer.fault, self.scorer.only_prompts = fault, only_prompts
        self.limit.seconds = 0.02 if fault == "hangs" else 60

    def clear_fault(self):
        self.scorer.release.set()
        self.set_fault(None)

    def step(self, *actions):
        """Step; return the rewards, and the infos of the slots whose episode has ended, else None."""
        if self.interface == "single":
            _, reward, terminated, truncated, info = self.env.step(actions[0])
            return [reward], [info if terminated or truncated else None]
        if self.interface == "sb3":
            _, rewards, dones, infos = self.env.step(np.array(actions))
            return rewards.tolist(), [info if done else None for info, done in zip(infos, dones, strict=True)]
        _, rewards, terminated, truncated, infos = self.env.step(np.array(actions))
        infos = infos.get("final_info", infos)
        ended = (terminated | truncated).tolist()
        return rewards.tolist(), [of_slot(infos, slot) if ended[slot] else None for slot in range(2)]

    def texts(self):
        core = self.env.core
        rows = zip(core.ids, core.prompt_lengths.tolist(), core.lengths.tolist(), strict=True)
        return [CHAR.decode(row[start:end].tolist()) for row, start, end in rows]


def of_slot(infos, slot):
    found = {}
    for key, values in infos.items():
        if not key.startswith("_") and infos[f"_{key}"][slot]:
            found[key] = of_slot(values, slot) if isinstance(values, dict) else values[slot]
    return found


INTERFACES = ["single", "NextStep", "SameStep", "Disabled", "sb3"]
in_all_interfaces = pytest.mark.parametrize("interface", INTERFACES)
with_every_fault = pytest.mark.parametrize("fault", MESSAGES)


@pytest.fixture
def bench(interface):
    if interface == "sb3":
        pytest.importorskip("stable_baselines3")
    made = []

    def make(**kwargs):
        made.append(Bench(interface, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.clear_fault()


# The three policies ---------------------------------------------------------------------------------------------------


@in_all_interfaces
@with_every_fault
def test_raise_gives_the_cause_and_the_step_can_be_repeated(bench, fault):
    one = bench(on_scorer_error="raise")
    one.step(A, B)
    one.set_fault(fault)
    before = one.env.get_state()
    for _ in range(2):
        with pytest.raises(ScorerError, match=MESSAGES[fault]) as caught:
            one.step(EOS, C)
        assert caught.value.completions == ("a",)
        check_same(before, one.env.get_state(), "state")
    one.clear_fault()
    rewards, ended = one.step(EOS, C)
    assert (rewards[0], ended[0]["completion"], ended[0]["score"]) == (1.0, "a", 1.0)
    assert "scorer_error" not in ended[0]
    assert one.texts()[1:] == ["bc"][: one.num_envs - 1]


@in_all_interfaces
@with_every_fault
def test_invalid_gives_reward_0_and_no_score(bench, fault):
    one = bench(on_scorer_error="invalid")
    one.step(A, B)
    one.set_fault(fault)
    rewards, ended = one.step(EOS, C)
    assert rewards[0] == 0.0
    assert ended[0]["completion"] == "a"
    assert np.isnan([ended[0]["score"], ended[0]["scores"]["faulty"]]).all()
    assert_said(ended[0], fault)
    assert one.texts()[1:] == ["bc"][: one.num_envs - 1]


@in_all_interfaces
@with_every_fault
def test_a_number_is_reward_and_score_and_the_component_stays_unknown(bench, fault):
    one = bench(on_scorer_error=-2)
    one.step(A, B)
    one.set_fault(fault)
    rewards, ended = one.step(EOS, C)
    assert (rewards[0], ended[0]["score"], ended[0]["completion"]) == (-2.0, -2.0, "a")
    assert np.isnan(ended[0]["scores"]["faulty"])
    assert_said(ended[0], fault)


@in_all_interfaces
@pytest.mark.parametrize("policy", ["invalid", -2])
def test_the_next_episode_has_no_error_of_the_previous_one(bench, policy):
    one = bench(on_scorer_error=policy, max_new_tokens=1)
    one.set_fault("raises")
    one.step(A, A)
    one.clear_fault()
    if one.interface == "single":
        one.env.reset()
    elif one.interface == "Disabled":
        one.env.reset(options={"reset_mask": np.array([True, True])})
    elif one.interface == "NextStep":
        one.step(A, A)
    rewards, ended = one.step(B, B)
    assert rewards == [1.0] * one.num_envs
    assert [(info["score"], "scorer_error" in info) for info in ended] == [(1.0, False)] * one.num_envs


def assert_said(info, fault):
    with pytest.raises(ScorerError, match=MESSAGES[fault]):
        raise ScorerError(info["scorer_error"])


# What a ScorerError carries -------------------------------------------------------------------------------------------


def test_the_error_names_the_texts_that_failed_and_no_others():
    def short(batch):
        return [1.0 if len(text) < 3 else None for text in batch.completions]

    with pytest.raises(ScorerError, match="episode 1 of 3, completion 'long'") as caught:
        evaluate(as_scorer(short), TextBatch.from_texts(["a", "long", "longer"]))
    assert caught.value.completions == ("long", "longer")


def test_an_error_survives_pickling_and_carries_no_text_by_default():
    error = pickle.loads(pickle.dumps(ScorerError("the model is away", ["a", "b"])))
    assert (str(error), error.completions) == ("the model is away", ("a", "b"))
    assert (str(ScorerError()), ScorerError("").completions) == ("", ())


# Rewards that score unfinished texts ----------------------------------------------------------------------------------


@in_all_interfaces
def test_a_fault_in_the_middle_of_a_text_leaves_it_as_it_was(bench):
    one = bench(reward="potential")
    one.step(A, B)
    one.set_fault("raises")
    with pytest.raises(ScorerError, match="the model is away") as caught:
        one.step(C, C)
    assert caught.value.completions == ("ac", "bc")[: one.num_envs]
    assert one.texts() == ["a", "b"][: one.num_envs]
    one.clear_fault()
    assert one.step(C, C)[0] == [1.0] * one.num_envs


# A reset inside of a step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["SameStep", "sb3"])
def test_an_end_is_not_lost_when_the_next_episode_cannot_begin(bench):
    one = bench(reward="potential")
    one.step(A, B)
    one.set_fault("raises", only_prompts=True)
    before = one.env.get_state()
    with pytest.raises(ScorerError, match="the model is away") as caught:
        one.step(EOS, C)
    assert caught.value.completions == ("",)
    check_same({**before, "rngs": None}, {**one.env.get_state(), "rngs": None}, "state")
    one.clear_fault()
    rewards, ended = one.step(EOS, C)
    assert (ended[0]["completion"], ended[0]["score"], ended[1]) == ("a", 1.0, None)
    assert rewards == [0.0, 1.0]  # the score, less the potential rewarded before
    assert one.texts() == ["", "bc"]


@pytest.mark.parametrize("interface", ["NextStep"])
def test_the_other_episodes_do_not_step_when_a_waiting_slot_cannot_begin(bench):
    one = bench(reward="potential")
    one.step(EOS, B)
    one.set_fault("raises", only_prompts=True)
    for _ in range(2):
        with pytest.raises(ScorerError, match="the model is away"):
            one.step(A, C)
        assert one.texts() == ["", "b"]
    one.clear_fault()
    one.step(A, C)
    assert one.texts() == ["", "bc"]


@pytest.mark.parametrize("interface", ["SameStep", "NextStep", "sb3"])
def test_prompts_that_run_out_do_not_take_a_step_with_them(bench):
    one = bench(prompts=iter(["Hi ", "Ho "]))
    one.step(A, B)
    if one.interface == "NextStep":
        one.step(EOS, C)
    before = one.texts()
    with pytest.raises(PromptsExhaustedError, match="ended after 2 prompts"):
        one.step(EOS, C)
    assert one.texts() == before


@pytest.mark.parametrize("interface", ["SameStep", "sb3"])
def test_a_step_that_fails_assigns_no_prompt_of_a_group(bench):
    one = bench(reward="potential", group_size=2)
    one.set_fault("raises", only_prompts=True)
    for _ in range(3):
        with pytest.raises(ScorerError):
            one.step(EOS, EOS)
    one.clear_fault()
    assert [info["group"] for info in one.step(EOS, EOS)[1]] == [1, 1]
    assert [info["group"] for info in one.step(EOS, EOS)[1]] == [2, 2]


@in_all_interfaces
def test_a_reset_that_is_repeated_draws_the_same_prompts(bench):
    one, undisturbed = bench(reward="potential", prompts=list("abcdefgh")), bench(prompts=list("abcdefgh"))
    undisturbed.env.set_state(one.env.get_state())
    one.set_fault("raises", only_prompts=True)
    for _ in range(2):
        with pytest.raises(ScorerError):
            one.env.reset()
    one.clear_fault()
    check_same(undisturbed.env.reset(), one.env.reset(), "reset")
    check_same(undisturbed.env.get_rng_states(), one.env.get_rng_states(), "generators")


@pytest.mark.parametrize("interface", ["NextStep", "SameStep", "sb3"])
def test_a_step_that_is_repeated_draws_the_same_prompts(bench):
    keywords = {"reward": "potential", "prompts": list("abcdefgh")}
    one, undisturbed = bench(**keywords), bench(**keywords)
    undisturbed.env.set_state(one.env.get_state())
    if one.interface == "NextStep":
        one.step(EOS, EOS), undisturbed.step(EOS, EOS)
    one.set_fault("raises", only_prompts=True)
    for _ in range(2):
        with pytest.raises(ScorerError):
            one.step(EOS, EOS)
    one.clear_fault()
    check_same(undisturbed.step(EOS, EOS), one.step(EOS, EOS), "step")
    check_same(undisturbed.env.get_state(), one.env.get_state(), "state")


@pytest.mark.parametrize("interface", ["NextStep"])
def test_a_step_that_fails_draws_no_prompt_for_a_waiting_slot(bench):
    one = bench(prompts=iter(["Hi ", "Ho ", "Ha "]))
    one.step(EOS, B)
    one.set_fault("raises")
    for _ in range(3):
        with pytest.raises(ScorerError):
            one.step(A, EOS)
    one.clear_fault()
    assert one.step(A, EOS)[1][1]["completion"] == "b"
    assert one.env.core.samples[0].prompt == "Ha "


def fails_with_its_text(completion):
    raise ValueError(f"no score for {completion}")


def test_each_slot_reports_the_error_of_its_own_episode():
    keywords = {"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 1, "on_scorer_error": "invalid"}
    envs = TextGenVectorEnv(3, scorer=fails_with_its_text, autoreset_mode="Disabled", **keywords)
    envs.reset(seed=0)
    *_, info = envs.step([A, B, C])
    for slot, letter in enumerate("abc"):
        assert f"raised ValueError: no score for {letter}, " in info["scorer_error"][slot]
    envs = TextGenVecEnv(3, scorer=fails_with_its_text, **keywords)
    envs.reset()
    *_, infos = envs.step(np.array([A, B, C]))
    for letter, info in zip("abc", infos, strict=True):
        assert f"raised ValueError: no score for {letter}, " in info["scorer_error"]


def test_each_slot_reports_the_error_of_its_own_unfinished_text():
    keywords = {"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 4, "on_scorer_error": "invalid"}
    envs = TextGenVectorEnv(2, scorer=fails_with_its_text, reward="potential", **keywords)
    _, info = envs.reset(seed=0)
    *_, info = envs.step([A, B])
    assert "no score for a," in info["scorer_error"][0]
    assert "no score for b," in info["scorer_error"][1]


# Observations and threads ---------------------------------------------------------------------------------------------


class FaultyWindow(TokenWindow):
    """The token window, which can be set to fail at one of the next calls."""

    calls_left = None

    def __call__(self, batch):
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise RuntimeError("no picture")
        return super().__call__(batch)


@in_all_interfaces
@pytest.mark.parametrize("call", [0, 1])
def test_an_observation_that_fails_undoes_the_step_whichever_call_it_is(bench, call):
    window = FaultyWindow()
    one, other = bench(observation=window), bench()
    for env in (one.env, other.env):
        env.set_state(one.env.get_state())
    one.step(A, B)
    other.step(A, B)
    before = one.env.get_state()
    window.calls_left = call
    try:
        one.step(EOS, C)
    except RuntimeError:
        check_same({**before, "rngs": None}, {**one.env.get_state(), "rngs": None}, "state")
        window.calls_left = None
        check_same(other.step(EOS, C), one.step(EOS, C), "the step after the error")
    else:
        assert call == 1  # only where slots restart in the step is there a second call
        assert one.interface not in ("SameStep", "sb3")


@in_all_interfaces
def test_an_observation_that_fails_undoes_the_reset(bench):
    window = FaultyWindow()
    one = bench(observation=window)
    one.step(A, B)
    before = one.env.get_state()
    window.calls_left = 0
    with pytest.raises(RuntimeError, match="no picture"):
        one.env.reset()
    check_same({**before, "rngs": None}, {**one.env.get_state(), "rngs": None}, "state")


@in_all_interfaces
def test_a_step_during_another_one_is_refused_and_the_first_one_counts(bench):
    refused = []

    class Meddling(TokenWindow):
        def __call__(self, batch):
            if env is not None and not refused:
                refused.append(None)
                for call in (lambda: one.step(B, B), one.env.reset):
                    with pytest.raises(RuntimeError, match="serves one thread at a time"):
                        call()
            return super().__call__(batch)

    env = None
    one = bench(observation=Meddling())
    env = one.env
    one.step(A, A)
    assert refused == [None]
    assert one.texts() == ["a"] * one.num_envs
