"""Fluency, coherence, novelty and Self-BLEU."""

import copy
import math
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from models import fed_tokens
from textgym.batch import TextBatch
from textgym.lm import load_lm, random_lm
from textgym.prompts import Sample
from textgym.scorers import Coherence, Fluency, Gate, Novelty, SelfBLEU, as_scorer, evaluate, observe_episodes
from textgym.testing import check_scorer
from textgym.tokenizers import CharTokenizer, as_tokenizer

ABC = CharTokenizer("abcdefg")
"""V = 8, EOS is 7."""
TINY = as_tokenizer("tiny")
NUM_SLOTS = 5


def small_fluency(window=64, **options):
    return Fluency(random_lm(8, window=window), tokenizer=ABC, **options)


def batch_of_ids(texts, prompts, slots=None, tokenizer=ABC):
    """Return a batch of completions and prompts given as ids."""
    rows = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    ids = np.full((len(rows), max(map(len, rows)) + 2), tokenizer.vocab_size)  # the environment's window is wider
    for row, text in zip(ids, rows, strict=True):
        row[: len(text)] = text
    samples = [Sample(tokenizer.decode(prompt)) for prompt in prompts]
    lengths, starts = (np.array([len(row) for row in of]) for of in (rows, prompts))
    slots = None if slots is None else np.array(slots)
    return TextBatch(tokenizer, ids, lengths, starts, samples, np.zeros(len(rows), dtype=bool), slots)


def mean_log_prob(model, prompt, text):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *text]])).logits[0].double().log_softmax(-1)
    return float(np.mean([logits[len(prompt) + i - 1, token] for i, token in enumerate(text)]))


# Fluency


@pytest.mark.parametrize("scale", ["log_prob", pytest.param("probability", marks=pytest.mark.slow)])
def test_a_small_model_fulfils_the_contract(scale):
    model = random_lm(TINY.vocab_size, window=96)
    report = check_scorer(Fluency(model, tokenizer=TINY, scale=scale), prefers=[])
    assert "same score token by token" in [check.name for check in report.checks]


@pytest.mark.slow
def test_the_embedded_model_is_the_default_and_fulfils_the_contract():
    check_scorer("fluency")


def test_a_uniform_model_gives_each_token_probability_1_over_v():
    model = random_lm(8)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    batch = TextBatch.from_texts(["abc", "g", ""], ["a", "", "abc"], tokenizer=ABC)
    np.testing.assert_allclose(Fluency(model, tokenizer=ABC)(batch), -math.log(8), rtol=1e-6)
    np.testing.assert_allclose(Fluency(model, tokenizer=ABC, scale="probability")(batch), 1 / 8, rtol=1e-6)


def test_the_score_is_the_mean_of_the_log_probabilities_of_the_completion_alone():
    model = random_lm(8)
    batch = TextBatch.from_texts(["abc", "gg", "d"], ["ab", "ab", "fedcba"], tokenizer=ABC)
    expected = [
        mean_log_prob(model, ABC.encode(p), ABC.encode(t))
        for p, t in zip(batch.prompts, batch.completions, strict=True)
    ]
    np.testing.assert_allclose(Fluency(model, tokenizer=ABC)(batch), expected, rtol=1e-5)


def test_an_empty_prompt_is_replaced_by_the_start_token():
    model = random_lm(8)
    batch = TextBatch.from_texts(["abc"], tokenizer=ABC)
    assert Fluency(model, tokenizer=ABC)(batch)[0] == pytest.approx(mean_log_prob(model, [7], [0, 1, 2]), rel=1e-5)


def test_a_chosen_eos_is_a_token_like_any_other():
    model = random_lm(8)
    assert small_fluency()(batch_of_ids([[0, 7]], [[1]]))[0] == pytest.approx(
        mean_log_prob(model, [1], [0, 7]), rel=1e-5
    )


def test_ids_of_another_vocabulary_are_encoded_again_with_their_eos():
    scorer = Fluency()
    text = "The dog ran home."
    own = TextBatch.from_texts([text], ["It was late. "], tokenizer=TINY)
    other = TextBatch.from_texts([text], ["It was late. "])
    np.testing.assert_allclose(scorer(other), scorer(own), rtol=1e-5)
    byte = as_tokenizer("byte")
    ended = batch_of_ids([[*byte.encode(text), 256]], [byte.encode("It was late. ")], tokenizer=byte)
    ended_own = batch_of_ids([[*TINY.encode(text), 0]], [TINY.encode("It was late. ")], tokenizer=TINY)
    np.testing.assert_allclose(scorer(ended), scorer(ended_own), rtol=1e-5)
    assert abs(scorer(ended)[0] - scorer(other)[0]) > 0.01


def test_a_vocabulary_padded_to_other_logits_is_the_same_vocabulary():
    scorer = Fluency()
    wide = TextBatch.from_texts(
        ["The dog ran home."], ["It was late. "], tokenizer=as_tokenizer("tiny", TINY.vocab_size + 50)
    )
    own = TextBatch.from_texts(["The dog ran home."], ["It was late. "], tokenizer=TINY)
    assert scorer.reads_ids(wide)
    np.testing.assert_allclose(scorer(wide), scorer(own), rtol=1e-5)


def test_tokens_beyond_the_positions_of_the_model_are_not_scored():
    model = random_lm(8, window=8)
    scorer = Fluency(model, tokenizer=ABC)
    prompt, text = [0, 1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1]
    assert scorer(batch_of_ids([text], [prompt]))[0] == pytest.approx(
        mean_log_prob(model, prompt[-4:], text[:4]), rel=1e-5
    )
    states = scorer.begin(batch_of_ids([[]], [prompt]))
    for length in range(1, 7):
        batch = batch_of_ids([text[:length]], [prompt])
        states = scorer.advance(states, batch)
        np.testing.assert_allclose(scorer.value(states, batch), scorer(batch), rtol=1e-5)
    assert states[0][1] == 4


@pytest.mark.parametrize("with_slots", [True, False])
def test_incremental_scores_equal_whole_text_scores_through_resets(with_slots):
    scorer = small_fluency()
    rng = np.random.default_rng(0)
    prompts: list = [None] * NUM_SLOTS
    texts: list = [None] * NUM_SLOTS
    states: list = [None] * NUM_SLOTS
    for _ in range(40):
        new = [i for i in range(NUM_SLOTS) if texts[i] is None]
        for i in new:
            prompts[i], texts[i] = rng.integers(7, size=rng.integers(1, 6)).tolist(), []
        if new:
            batch = batch_of_ids([texts[i] for i in new], [prompts[i] for i in new], new if with_slots else None)
            for i, state in zip(new, scorer.begin(batch), strict=True):
                states[i] = state
        moved = [i for i in range(NUM_SLOTS) if rng.random() < 0.8] or [0]
        for i in moved:
            texts[i] = [*texts[i], int(rng.integers(8))]
        batch = batch_of_ids([texts[i] for i in moved], [prompts[i] for i in moved], moved if with_slots else None)
        advanced = scorer.advance([states[i] for i in moved], batch)
        np.testing.assert_allclose(scorer.value(advanced, batch), scorer(batch), rtol=1e-4)
        for i, state in zip(moved, advanced, strict=True):
            states[i] = state
            if texts[i][-1] == 7:
                texts[i] = None


def test_each_token_costs_the_model_one_token():
    scorer = small_fluency()
    prompts = [[0, 1, 2], [3, 4], [5, 6, 0, 1]]
    texts = [[1, 2, 3, 4], [5, 6, 0], [1, 1, 1, 1]]
    states = scorer.begin(batch_of_ids([[]] * 3, prompts, [0, 1, 2]))
    states = scorer.advance(states, batch_of_ids([text[:1] for text in texts], prompts, [0, 1, 2]))
    with fed_tokens(scorer._lm.model) as fed:
        for length in (2, 3):
            states = scorer.advance(states, batch_of_ids([text[:length] for text in texts], prompts, [0, 1, 2]))
        kept = [0, 2]  # the second text has ended
        scorer.advance(
            [states[i] for i in kept], batch_of_ids([texts[i] for i in kept], [prompts[i] for i in kept], kept)
        )
    assert fed == [3, 3, 2]


def test_begin_of_empty_completions_does_not_call_the_model():
    scorer = small_fluency()
    with fed_tokens(scorer._lm.model) as fed:
        assert scorer.begin(batch_of_ids([[]], [[0, 1]])) == [(0.0, 0)]
    assert fed == []


def test_a_shared_prompt_is_fed_once():
    scorer = small_fluency(window=256)
    batch = batch_of_ids([[1, 2], [3, 4], [5, 6]], [[0, 1] * 60] * 3)
    scorer(batch)  # the first call tests whether the model supports shared prompts
    with fed_tokens(scorer._lm.model) as fed:
        scorer(batch)
    assert sum(fed) < 2 * 120


def test_a_name_stays_out_of_pickles_and_copies_share_the_weights():
    scorer = Fluency()
    assert len(pickle.dumps(scorer)) < 300
    assert copy.deepcopy(scorer)._lm is scorer._lm
    assert pickle.loads(pickle.dumps(scorer))._lm is scorer._lm
    assert len(pickle.dumps(small_fluency())) > 10_000


def test_training_the_given_model_does_not_change_the_scores():
    model = random_lm(8)
    scorer = Fluency(model, tokenizer=ABC)
    batch = batch_of_ids([[0, 1]], [[2]])
    before = scorer(batch)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3)
    assert scorer(batch) == before
    assert Fluency(model, tokenizer=ABC)(batch) != before


def test_logits_of_minus_infinity_leave_a_finite_score():
    model = random_lm(8)
    model.get_output_embeddings().register_forward_hook(
        lambda _, __, logits: logits.index_fill(-1, torch.tensor([3]), -math.inf)
    )
    assert Fluency(model, tokenizer=ABC)(batch_of_ids([[3, 3]], [[0]])).tolist() == [-100.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Fluency(scale="log"), ValueError, "unknown scale 'log'"),
        (lambda: Fluency("tinny"), ValueError, "unknown model 'tinny'; did you mean 'tiny'"),
        (lambda: Fluency("tiny", tokenizer=ABC), TypeError, "has its own tokenizer"),
        (lambda: Fluency(load_lm("tiny")), TypeError, "a loaded causal LM and tokenizer="),
        (lambda: Fluency(7, tokenizer=ABC), TypeError, "got model of type int"),
    ],
)
def test_invalid_arguments_of_fluency_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_empty_prompt_needs_a_start_token():
    tokenizer = CharTokenizer("abcdefg")
    tokenizer.eos_token_id = None
    scorer = Fluency(random_lm(8), tokenizer=tokenizer)
    assert np.isfinite(scorer(TextBatch.from_texts(["a"], ["b"], tokenizer=tokenizer))).all()
    with pytest.raises(ValueError, match="neither BOS nor EOS"):
        scorer(TextBatch.from_texts(["a"], tokenizer=tokenizer))


def test_torch_is_not_imported_before_a_scorer_is_built():
    code = "import sys; from textgym.scorers import BradleyTerry, Fluency; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# Coherence


def by_first_letter(texts):
    return [[text.strip().startswith("a"), text.strip().startswith("b"), 0.0] for text in texts]


def test_coherence_is_the_cosine_of_prompt_and_completion():
    vectors = {"p": [3.0, 4.0], "same": [6.0, 8.0], "opposite": [-3.0, -4.0], "near": [4.0, 3.0], "": [0.0, 0.0]}
    scorer = Coherence(lambda texts: [vectors[text] for text in texts])
    scores = scorer(TextBatch.from_texts(["same", "opposite", "near", ""], ["p"] * 4))
    np.testing.assert_allclose(scores, [1.0, -1.0, 24 / 25, 0.0], atol=1e-6)


def test_coherence_does_not_apply_without_a_prompt():
    assert np.isnan(Coherence(by_first_letter)(TextBatch.from_texts(["a"], [""]))).all()


def test_a_continuation_is_more_coherent_than_something_else():
    prompts = ["The dog was hungry."] * 2
    near, far = Coherence()(TextBatch.from_texts(["So it ate its food.", "Interest rates fell."], prompts))
    assert near > far + 0.1


def test_an_invalid_embedder_is_rejected():
    with pytest.raises(TypeError, match="embedder"):
        Coherence(3)


# Novelty


def observed(scorer, *completions):
    """Return the scores of finished episodes, after the scorer has observed them as in an environment."""
    batch = TextBatch.from_texts(completions)
    scores = evaluate(scorer, batch)
    observe_episodes(scorer, batch, scores)
    return scores.total.tolist()


def test_novelty_is_the_fraction_of_new_ngrams():
    scorer = Novelty(["the cat sat on the mat"], n=2, remembers=False)
    texts = ["The cat sat", "the cat ran off", "mat the", "the", "cat dog", ""]
    # bigrams: both known; "cat ran" and "ran off" of 3 new; new; one word alone is no known bigram; new; nothing
    expected = [0.0, 2 / 3, 1.0, 1.0, 1.0, 0.0]
    np.testing.assert_allclose(scorer(TextBatch.from_texts(texts)), expected)


def test_a_text_is_new_once():
    scorer = Novelty()
    assert [observed(scorer, "Snow fell all night.") for _ in range(3)] == [[1.0], [0.0], [0.0]]


@pytest.mark.parametrize("scorer", [Novelty(), SelfBLEU()], ids=lambda scorer: scorer.name)
def test_scoring_does_not_change_the_memory(scorer):
    batch = TextBatch.from_texts(["Snow fell all night."])
    state = scorer.get_state()
    assert scorer(batch).tolist() == scorer(batch).tolist()
    assert scorer.get_state() == state


def test_texts_of_one_call_are_not_compared_with_each_other():
    scorer = Novelty()
    assert observed(scorer, *["Snow fell all night."] * 64) == [1.0] * 64
    assert observed(scorer, *["Snow fell all night."] * 64) == [0.0] * 64


def test_unfinished_texts_are_not_remembered():
    scorer = Novelty()
    batch = TextBatch.from_texts(["Snow fell", "Rain fell all day"])
    batch.done[0] = False
    scorer.observe(batch, evaluate(scorer, batch))
    assert scorer(batch).tolist() == [1.0, 0.0]


def test_only_scored_texts_are_remembered():
    novelty = Novelty()
    scorer = Gate("length_band", 0.0, {"novelty": (novelty, 1.0)})
    gate = Gate(lambda completion: float("snow" in completion), 1.0, novelty)
    assert observed(gate, "all the snow fell", "all the rain fell") == [1.0, 0.0]
    assert novelty(TextBatch.from_texts(["all the snow fell", "all the rain fell"])).tolist() == [0.0, 1.0]
    assert observed(scorer, "all the rain fell") == [1.0]
    assert observed(scorer, "all the rain fell") == [0.0]


def test_the_oldest_texts_are_dropped():
    scorer = Novelty(memory_size=2, n=1)
    for text in ("one", "two", "two", "three"):
        observed(scorer, text)
    assert scorer(TextBatch.from_texts(["one", "two", "three"])).tolist() == [1.0, 0.0, 0.0]


def test_a_copy_has_its_own_memory():
    scorer = Novelty()
    twin = pickle.loads(pickle.dumps(scorer))
    batch = TextBatch.from_texts(["Snow fell."])
    observed(scorer, "Snow fell.")
    assert twin(batch).tolist() == [1.0]
    assert pickle.loads(pickle.dumps(scorer))(batch).tolist() == [0.0]


@pytest.mark.parametrize("scorer", [Novelty, SelfBLEU])
def test_a_fixed_memory_is_deterministic(scorer):
    fixed = {"remembers": False} if scorer is Novelty else {"remembers": False, "with_batch": False}
    past = ["The happy dog ran home.", "the cat sat on a mat"]
    assert scorer(past, **fixed).deterministic
    assert not scorer(past).deterministic
    check_scorer(scorer(past, **fixed))
    check_scorer(scorer(past))


# SelfBLEU


def random_texts(rng):
    return [" ".join(rng.choice(list("abcdef"), rng.integers(1, 12))) for _ in range(rng.integers(2, 7))]


def test_self_bleu_equals_sacrebleu_with_the_other_texts_as_references():
    bleu = BLEU(effective_order=True, tokenize="none")
    rng = np.random.default_rng(0)
    for _ in range(50):
        texts = random_texts(rng)
        expected = [bleu.sentence_score(t, texts[:i] + texts[i + 1 :]).score / 100 for i, t in enumerate(texts)]
        np.testing.assert_allclose(SelfBLEU(memory_size=0)(TextBatch.from_texts(texts)), expected, atol=1e-9)
        by_memory = SelfBLEU(texts[1:])(TextBatch.from_texts(texts[:1]))
        np.testing.assert_allclose(by_memory, expected[:1], atol=1e-9)


def test_batch_and_memory_are_references_together():
    bleu = BLEU(effective_order=True, tokenize="none")
    texts = ["a b c d", "a b e f g", "c d e"]
    scores = SelfBLEU(texts[2:])(TextBatch.from_texts(texts[:2]))
    expected = [bleu.sentence_score(texts[i], [texts[1 - i], texts[2]]).score / 100 for i in range(2)]
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_a_single_text_scores_0_and_1_when_repeated():
    scorer = SelfBLEU()
    np.testing.assert_allclose([observed(scorer, "Snow fell all night.")[0] for _ in range(2)], [0.0, 1.0])


def test_an_empty_text_scores_0_and_is_not_a_reference():
    assert SelfBLEU()(TextBatch.from_texts(["", "", "snow"])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Novelty(n=0), ValueError, "n is 0, expected an integer >= 1"),
        (lambda: Novelty(memory_size=0), ValueError, "memory_size is 0, expected an integer >= 1"),
        (lambda: Novelty("a text"), TypeError, "past is one string, 'a text'"),
        (lambda: SelfBLEU(n=1.5), ValueError, "n is 1.5, expected an integer >= 1"),
        (lambda: SelfBLEU(memory_size=-1), ValueError, "memory_size is -1, expected an integer >= 0"),
        (lambda: SelfBLEU("a text"), TypeError, "past is one string, 'a text'"),
    ],
)
def test_invalid_arguments_of_memory_scorers_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["coherence", "fluency", "novelty", "self_bleu"])
def test_each_has_a_name_and_works_in_an_evaluation(name):
    batch = TextBatch.from_texts(["The dog ran home.", "It slept."], ["It was late."] * 2)
    assert list(evaluate(as_scorer(name), batch).components) == [name]


def test_threads_that_share_a_model_give_the_same_scores():
    scorer = Fluency()
    batches = [
        TextBatch.from_texts([f"{word} dog ran home. " * n for n in range(1, 5)]) for word in ("A", "The", "One")
    ]
    alone = [scorer(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(scorer, batches * 4))
    for expected, got in zip(alone * 4, together, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
