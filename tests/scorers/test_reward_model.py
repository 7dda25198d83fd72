import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import RewardModel, RewardModelConfig, evaluate, score_batch
from textgym.testing import check_scorer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<eos>", "the", "cat", "dog", "sat", "on", "a", "mat", "happy"]
WORDS += ["sad", ".", "!"]


def tokenizer_of(**special):
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if "cls_token" in special:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", model_max_length=32, **special)


def bert(num_labels=1, **options):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    shape |= {"max_position_embeddings": 32, "initializer_range": 0.5}
    config = BertConfig(vocab_size=len(WORDS), num_labels=num_labels, pad_token_id=0, **shape, **options)
    tokenizer = tokenizer_of(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return BertForSequenceClassification(config), tokenizer


def gpt2(pad_token_id=None):
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=len(WORDS), num_labels=1, eos_token_id=4, bos_token_id=4, **shape)
    config.pad_token_id = pad_token_id
    return GPT2ForSequenceClassification(config), tokenizer_of(eos_token="<eos>")


def logits_of(model, tokenizer, *texts):
    model.eval()
    with torch.no_grad():
        return np.array([model(**tokenizer(*text, return_tensors="pt")).logits[0].tolist() for text in texts])


def batch_of(*completions, **columns):
    return TextBatch.from_texts(list(completions), **columns)


PROMPTS = ["the cat ", "a ", "", "the happy dog "]
COMPLETIONS = ["sat on a mat .", "dog", "the sad cat sat on the happy mat !", "sat !"]
BATCH = batch_of(*COMPLETIONS, prompts=PROMPTS)
WHOLE = [(prompt + text,) for prompt, text in zip(PROMPTS, COMPLETIONS, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_batch_has_the_logits_of_its_texts_alone(batch_size):
    model, tokenizer = bert()
    expected = logits_of(model, tokenizer, *WHOLE)[:, 0]
    scores = RewardModel(model, tokenizer, RewardModelConfig(batch_size=batch_size))(BATCH)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("pad_token_id", [None, 0, 4, 5])
def test_a_causal_model_is_read_at_the_last_token_whatever_its_pad_token_is(pad_token_id):
    model, tokenizer = gpt2(pad_token_id)
    texts = ["the cat sat <eos>", "the", "the cat <eos> <eos>", "a mat the"]
    model.config.pad_token_id = None  # without padding, the last token needs no search
    expected = logits_of(model, tokenizer, *[(text,) for text in texts])[:, 0]
    model.config.pad_token_id = pad_token_id
    np.testing.assert_allclose(RewardModel(model, tokenizer)(batch_of(*texts)), expected, atol=1e-5)
    assert model.config.pad_token_id == pad_token_id


def test_the_label_is_chosen_by_index_or_name():
    model, tokenizer = bert(3, id2label={0: "bad", 1: "so so", 2: "good"})
    expected = logits_of(model, tokenizer, *WHOLE)
    for label in (2, "good"):
        scores = RewardModel(model, tokenizer, RewardModelConfig(label=label))(BATCH)
        np.testing.assert_allclose(scores, expected[:, 2], atol=1e-5)


def test_a_probability_is_a_softmax_or_where_labels_do_not_exclude_each_other_a_sigmoid():
    model, tokenizer = bert(2)
    logits = logits_of(model, tokenizer, *WHOLE)
    config = RewardModelConfig(label=1, output="probability")
    scorer = RewardModel(model, tokenizer, config)
    assert scorer.score_range == (0.0, 1.0)
    np.testing.assert_allclose(scorer(BATCH), 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), atol=1e-5)
    model.config.problem_type = "multi_label_classification"
    np.testing.assert_allclose(RewardModel(model, tokenizer, config)(BATCH), 1 / (1 + np.exp(-logits[:, 1])), atol=1e-5)
    model, tokenizer = bert(1)
    logits = logits_of(model, tokenizer, *WHOLE)[:, 0]
    scores = RewardModel(model, tokenizer, RewardModelConfig(output="probability"))(BATCH)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_the_template_determines_the_classified_text():
    model, tokenizer = bert()
    scorer = RewardModel(model, tokenizer, RewardModelConfig(template="sad {completion} . {prompt}"))
    expected = logits_of(model, tokenizer, *[(f"sad {b} . {a}",) for a, b in zip(PROMPTS, COMPLETIONS, strict=True)])
    np.testing.assert_allclose(scorer(BATCH), expected[:, 0], atol=1e-5)


def test_a_pair_keeps_prompt_and_completion_apart():
    model, tokenizer = bert()
    expected = logits_of(model, tokenizer, *zip(PROMPTS, COMPLETIONS, strict=True))[:, 0]
    scores = RewardModel(model, tokenizer, RewardModelConfig(template="pair"))(BATCH)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert abs(expected - logits_of(model, tokenizer, *WHOLE)[:, 0]).max() > 0.01


def test_the_chat_template_is_the_tokenizers():
    model, tokenizer = gpt2()
    template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <eos> {% endfor %}"
    tokenizer.chat_template = template
    expected = logits_of(model, tokenizer, ("user the cat <eos> assistant sat <eos> ",))[:, 0]
    scorer = RewardModel(model, tokenizer, RewardModelConfig(template="chat"))
    np.testing.assert_allclose(scorer(batch_of("sat", prompts=["the cat"])), expected, atol=1e-5)


def test_a_long_text_keeps_its_end():
    model, tokenizer = bert()
    scorer = RewardModel(model, tokenizer, RewardModelConfig(max_tokens=5))
    expected = logits_of(model, tokenizer, ("on a mat",))[:, 0]
    batch = batch_of("sat on a mat", "a mat", "on a mat", prompts=["the cat ", "the dog sat on ", ""])
    np.testing.assert_allclose(scorer(batch), np.repeat(expected, 3), atol=1e-5)
    assert tokenizer.truncation_side == "right"
    assert np.isfinite(RewardModel(model, tokenizer)(batch_of("the cat " * 100))).all()  # beyond the model's positions


def test_a_model_in_training_scores_without_dropout_and_stays_in_training():
    model, tokenizer = bert()
    expected = logits_of(model, tokenizer, *WHOLE)[:, 0]
    model.train()
    np.testing.assert_allclose(RewardModel(model, tokenizer)(BATCH), expected, atol=1e-5)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_empty_text_scores_as_one_special_token():
    model, tokenizer = gpt2()
    expected = logits_of(model, tokenizer, ("<eos>",))[:, 0]
    np.testing.assert_allclose(RewardModel(model, tokenizer)(batch_of("")), expected, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier")
    model, tokenizer = bert()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_folder_is_loaded_and_pickled_by_its_name(folder):
    model, tokenizer = bert()
    expected = logits_of(model, tokenizer, *WHOLE)[:, 0]
    for name in (folder, str(folder)):
        scorer = RewardModel(name)
        assert len(pickle.dumps(scorer)) < 2_000
        for copied in (scorer, pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer)):
            np.testing.assert_allclose(copied(BATCH), expected, atol=1e-5)


def test_a_loaded_model_is_pickled_with_its_weights():
    scorer = RewardModel(*bert())
    np.testing.assert_allclose(pickle.loads(pickle.dumps(scorer))(BATCH), scorer(BATCH), atol=1e-6)


def test_a_model_without_a_trained_head_is_rejected(tmp_path):
    GPT2LMHeadModel(gpt2()[0].config).save_pretrained(tmp_path)
    tokenizer_of(eos_token="<eos>").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks weights of a sequence classifier: score.weight"):
        RewardModel(tmp_path)


def test_a_model_that_gives_nan_fails():
    model, tokenizer = bert()
    model.classifier.bias.data[:] = float("nan")
    assert "got NaN from the model for 4 of 4 texts" in score_batch(RewardModel(model, tokenizer), BATCH).error


# Functions


def lengths(prompts, completions):
    return [float(len(prompt + text)) for prompt, text in zip(prompts, completions, strict=True)]


def tensor_lengths(prompts, completions):
    return torch.tensor(lengths(prompts, completions), dtype=torch.bfloat16, requires_grad=True)


@pytest.mark.parametrize("function", [lengths, tensor_lengths])
def test_a_function_replaces_a_model(function):
    scorer = RewardModel(function)
    assert scorer(BATCH).tolist() == lengths(PROMPTS, COMPLETIONS)
    assert pickle.loads(pickle.dumps(scorer))(BATCH).dtype == np.float64
    assert scorer.score_range is None


def test_a_function_that_returns_too_few_scores_is_an_error():
    with pytest.raises(ScorerError, match="returned 1 scores for 4 episodes"):
        evaluate(RewardModel(lambda prompts, completions: [1.0]), BATCH)


# Invalid arguments


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RewardModel(3), TypeError, "model is 3 of type int"),
        (lambda: RewardModel(lengths, config=RewardModelConfig()), TypeError, "neither a tokenizer nor a config"),
        (
            lambda: RewardModel(*bert(), {}),
            TypeError,
            r"config is {} of type dict; expected RewardModelConfig\(\.\.\.\)",
        ),
        (lambda: RewardModel(bert()[0]), TypeError, "a loaded model needs its tokenizer"),
        (lambda: RewardModel("/no/such/folder"), ValueError, "no sequence classifier called '/no/such/folder'"),
        (lambda: RewardModel(*bert(2)), ValueError, "has 2 labels; choose .*: LABEL_0, LABEL_1"),
        (lambda: RewardModel(*bert(2), RewardModelConfig(label="LABEL_2")), ValueError, "unknown label 'LABEL_2'"),
        (lambda: RewardModel(*bert(2), RewardModelConfig(label=2)), ValueError, "label is 2, the model has the labels"),
        (lambda: RewardModel(*bert(), RewardModelConfig(template="chat")), ValueError, "has no chat template"),
        (lambda: RewardModelConfig(template="{prompt}"), ValueError, "template must contain {completion}"),
        (lambda: RewardModelConfig(template="{completion} {answer}"), ValueError, "may contain {prompt} and"),
        (lambda: RewardModelConfig(template="{completion} {prompt.text}"), ValueError, "may contain {prompt} and"),
        (lambda: RewardModelConfig(output="score"), ValueError, "unknown output 'score'"),
        (lambda: RewardModelConfig(batch_size=0), ValueError, "batch_size is 0, expected an integer >= 1"),
        (lambda: RewardModelConfig(max_tokens=1.5), ValueError, "max_tokens is 1.5, expected an integer >= 1"),
    ],
)
def test_invalid_reward_models_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_reward_model_follows_the_scorer_contract():
    check_scorer(RewardModel(*bert(2), RewardModelConfig(label=0, output="probability")))
    check_scorer(RewardModel(*gpt2()))


def test_importing_the_module_does_not_import_torch():
    code = "import sys, textgym.scorers.learned.reward_model as m; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
