import functools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import (
    BLEU,
    ROUGE,
    TER,
    ChrF,
    EditSimilarity,
    EmbeddingSimilarity,
    ExactMatch,
    TokenF1,
    as_scorer,
    evaluate,
    scorer_name,
)
from textgym.scorers.embeddings import CallableEmbedder, EncoderEmbedder, WordLlamaEmbedder, as_embedder
from textgym.testing import check_scorer
from textgym.tokenizers import embedded_lm_path

NAMES = ["bleu", "chrf", "edit_similarity", "embedding_similarity", "exact_match", "rouge", "ter", "token_f1"]
PACKAGES = {
    "bleu": ("sacrebleu", "sacrebleu"),
    "chrf": ("sacrebleu", "sacrebleu"),
    "edit_similarity": ("rapidfuzz", "rapidfuzz"),
    "rouge": ("rouge-score", "rouge_score"),
    "ter": ("sacrebleu", "sacrebleu"),
}
"""Scorer id -> name of the package on PyPI and name of its module."""
TINY = str(embedded_lm_path("tiny"))


def score(scorer, completion, *references):
    return scorer(TextBatch.from_texts([completion], references=[references])).item()


def letter_counts(texts):
    """Embed texts by their counts of the letters a, b and c."""
    return [[text.count(letter) for letter in "abc"] for text in texts]


# All scorers


@pytest.mark.parametrize(
    "scorer",
    [
        *NAMES,
        BLEU(2, "char", ignore_case=True),
        ChrF(word_order=2, beta=1, ignore_case=True),
        TER(ignore_case=False, ignore_punctuation=True, max_words=8),
        ROUGE("rouge2", "recall", stemmer=True),
        ROUGE("rougeLsum"),
        EditSimilarity("words", ignore_case=True),
        ExactMatch(False, False, False),
        TokenF1(ignore_articles=False),
        EmbeddingSimilarity(letter_counts),
        EmbeddingSimilarity(TINY),
    ],
)
def test_every_scorer_follows_the_contract(scorer):
    check_scorer(scorer, references=["The happy dog ran home.", "A cat sat.", "\ud800\0", ""])


@pytest.mark.parametrize("name", NAMES)
def test_the_id_is_the_name_in_info(name):
    assert scorer_name(as_scorer(name)) == name


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_without_references_scores_nan_and_the_others_are_unaffected(name):
    scorer = as_scorer(name)
    mixed = TextBatch.from_texts(["a red hat", "a red hat", "a red hat"], references=[[], ["a red hat"], ()])
    np.testing.assert_allclose(scorer(mixed), [np.nan, 1.0, np.nan])
    with pytest.raises(ScorerError, match=f"scorer '{name}' gave no score"):
        evaluate(scorer, mixed)


@pytest.mark.parametrize("name", NAMES)
def test_an_equal_text_scores_1_an_empty_and_an_unrelated_one_near_0(name):
    scorer = as_scorer(name)
    batch = TextBatch.from_texts(["Two dogs ran home.", "", "Zzz xxx"], references=[["Two dogs ran home."]] * 3)
    np.testing.assert_allclose(scorer(batch), [1, 0, 0], atol=0.12)
    assert scorer(batch)[1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_matched_reference_gives_1_at_any_position(name):
    scorer = as_scorer(name)
    text = "it was a cat"
    assert score(scorer, text, "the dogs barked at me") < 0.5
    assert score(scorer, text, "the dogs barked at me", text) == pytest.approx(1)
    assert score(scorer, text, text, "the dogs barked at me") == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(st.tuples(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=2)), max_size=4))
def test_scores_are_in_range_or_nan_for_any_texts(name, pairs):
    scorer = built(name)
    found = scorer(TextBatch.from_texts([text for text, _ in pairs], references=[refs for _, refs in pairs]))
    assert np.isnan(found).tolist() == [not refs for _, refs in pairs]
    assert ((found >= 0) & (found <= 1) | np.isnan(found)).all()


@functools.cache
def built(name):
    return as_scorer(name)


def test_a_missing_package_is_an_error_at_construction_with_the_command_that_installs_it():
    code = "import sys; from textgym.scorers import as_scorer\n"
    for name, (_, module) in PACKAGES.items():
        code += f"sys.modules[{module!r}] = None\ntry: as_scorer({name!r})\nexcept ImportError as error: print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [
        f"the scorer {name!r} needs the package {pip}: pip install {pip!r}" for name, (pip, _) in PACKAGES.items()
    ]
    assert [line.split(" (included in the extra")[0] for line in done.stdout.splitlines()] == expected


def test_importing_the_group_imports_none_of_the_packages():
    modules = {module for _, module in PACKAGES.values()} | {"wordllama", "torch", "transformers", "nltk"}
    code = f"""
import sys
from textgym.scorers import BLEU, ROUGE, EditSimilarity, EmbeddingSimilarity
print(sorted(set(sys.modules) & {modules!r}))"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# BLEU, chrF and TER


def test_bleu_is_the_brevity_penalty_times_the_mean_of_the_logarithms_of_the_precisions():
    assert score(BLEU(), "the cat", "the cat sat down") == pytest.approx(math.exp(1 - 4 / 2))  # both precisions are 1
    assert score(BLEU(2), "the cat ran off", "the cat sat down") == pytest.approx(math.sqrt(2 / 4 * 1 / 3))
    # 3-grams: none of 2 matches, smoothed to (1/2) / 2; 4-grams: none of 1, smoothed to (1/4) / 1.
    expected = (2 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4)
    assert score(BLEU(), "the cat ran off", "the cat sat down") == pytest.approx(expected)


def test_bleu_takes_its_n_grams_from_all_references_together():
    assert score(BLEU(1), "red hat", "red cat", "big hat") == pytest.approx(1)


def test_bleu_can_ignore_case_and_count_characters():
    assert score(BLEU(1), "The Cat", "the cat") == 0
    assert score(BLEU(1, ignore_case=True), "The Cat", "the cat") == pytest.approx(1)
    assert score(BLEU(1), "猫坐下", "猫坐着") == 0
    assert score(BLEU(1, "char"), "猫坐下", "猫坐着") == pytest.approx(2 / 3)


def test_chrf_is_the_f_score_of_character_n_grams():
    one = functools.partial(ChrF, char_order=1)
    assert score(one(), "ab", "ac") == pytest.approx(1 / 2)
    # Precision 1, recall 1/2: F2 = 5 * 0.5 / (4 + 0.5), F1 = 2 * 0.5 / 1.5.
    assert score(one(), "ab", "abcd") == pytest.approx(2.5 / 4.5)
    assert score(one(beta=1), "ab", "abcd") == pytest.approx(2 / 3)
    # Orders 1 and 2, "ab" and "ac": 1/2 and 0.
    assert score(ChrF(char_order=2), "ab", "ac") == pytest.approx(1 / 4)
    assert score(one(ignore_case=True), "AB", "ab") == pytest.approx(1)


def test_chrf_counts_words_with_word_order():
    plain, plus = score(ChrF(), "a cat sat", "a cat ran"), score(ChrF(word_order=2), "a cat sat", "a cat ran")
    assert plain != plus


@pytest.mark.parametrize(
    ("completion", "references", "expected"),
    [
        ("the cat sat down", ["the cat sat down"], 1),
        ("the cat sat", ["the cat sat down"], 3 / 4),
        ("the dog sat here", ["the cat sat down"], 2 / 4),
        ("sat down the cat", ["the cat sat down"], 3 / 4),  # one move of two words
        ("The Cat", ["the cat"], 1),
        ("the cat", ["a dog", "the cat ran off"], 1 - 2 / 3),  # the fewest edits, 2, by the mean length, 3
        ("one two three four", ["the cat"], 0),
        ("the cat is too much", ["the cat"], 0),
        ("", [""], 1),
        ("a", [""], 0),
    ],
)
def test_ter_is_1_minus_the_edits_per_word_of_the_reference(completion, references, expected):
    assert score(TER(), completion, *references) == pytest.approx(expected)


def test_ter_can_respect_case_and_ignore_punctuation():
    assert score(TER(ignore_case=False), "The cat", "the cat") == pytest.approx(1 / 2)
    assert score(TER(), "the cat !", "the cat") == pytest.approx(1 / 2)
    assert score(TER(ignore_punctuation=True), "the cat!", "the cat") == pytest.approx(1)


def test_ter_reads_max_words_but_detects_texts_of_twice_the_length():
    assert score(TER(max_words=2), "a b c d", "a b x y") == pytest.approx(1)
    assert score(TER(max_words=2), "a b " * 100, "a b x y") == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BLEU(0), "max_order is 0, expected an integer >= 1"),
        (lambda: BLEU(tokenizer="flores200"), "unknown tokenizer 'flores200'"),
        (lambda: ChrF(char_order=0), "expected char_order >= 1"),
        (lambda: ChrF(word_order=-1), "word_order >= 0"),
        (lambda: ChrF(beta=0), "beta > 0"),
        (lambda: TER(max_words=0), "max_words is 0, expected an integer >= 1"),
        (lambda: ROUGE("rouge"), "unknown variant 'rouge'; did you mean"),
        (lambda: ROUGE(measure="f2"), "unknown measure 'f2'; did you mean 'f1'"),
        (lambda: EditSimilarity("letters"), "unknown unit 'letters'"),
    ],
)
def test_invalid_options_are_rejected(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ROUGE


@pytest.mark.parametrize(
    ("variant", "precision", "recall"),
    [("rouge1", 4 / 4, 4 / 6), ("rouge2", 2 / 3, 2 / 5), ("rouge3", 0, 0), ("rougeL", 3 / 4, 3 / 6)],
)
def test_rouge_is_the_f1_of_the_common_words(variant, precision, recall):
    completion, reference = "the cat on the", "the cat sat on the mat"  # 2-grams in common: the cat, on the
    if variant == "rougeL":
        completion = "mat the cat sat"
    f1 = 2 * precision * recall / (precision + recall) if precision else 0
    for measure, expected in {"f1": f1, "precision": precision, "recall": recall}.items():
        assert score(ROUGE(variant, measure), completion, reference) == pytest.approx(expected)


def test_rouge_takes_the_best_reference_by_the_chosen_measure():
    references = ("a b c d", "a x")
    assert score(ROUGE("rouge1", "precision"), "a b", *references) == 1
    assert score(ROUGE("rouge1", "recall"), "a", *references) == 1 / 2


def test_rouge_lsum_compares_line_by_line():
    assert score(ROUGE("rougeL"), "b\na", "a\nb") == 1 / 2
    assert score(ROUGE("rougeLsum"), "b\na", "a\nb") == 1


def test_a_stemmer_equates_forms_of_a_word():
    assert score(ROUGE(), "cats running", "cat runs") == 0
    assert score(ROUGE(stemmer=True), "cats running", "cat runs") == 1


# Edits and answers


def test_edit_similarity_is_1_minus_the_normalised_distance():
    assert score(EditSimilarity(), "the hat", "the cat") == pytest.approx(1 - 1 / 7)
    assert score(EditSimilarity(), "cat", "the cat") == pytest.approx(1 - 4 / 7)
    assert score(EditSimilarity("words"), "the  red hat", "the hat") == pytest.approx(1 - 1 / 3)
    assert score(EditSimilarity(), "CAT", "cat") == 0
    assert score(EditSimilarity(ignore_case=True), "CAT", "cat") == 1
    assert score(EditSimilarity(), "", "") == score(EditSimilarity("words"), " ", "") == 1


@pytest.mark.parametrize(
    ("completion", "exact", "f1"),
    [
        ("the Eiffel Tower", 1, 1),
        (" eiffel\ntower.", 1, 1),
        ("An Eiffel-Tower", 0, 0),  # without its hyphen that is one word
        ("tower Eiffel", 0, 1),
        ("Eiffel Tower in Paris", 0, 2 * 2 / (4 + 2)),
        ("tower tower", 0, 2 * 1 / (2 + 2)),
        ("theatre", 0, 0),
        ("the", 0, 0),
        ("", 0, 0),
    ],
)
def test_answers_are_compared_as_in_squad(completion, exact, f1):
    assert score(ExactMatch(), completion, "Eiffel Tower") == exact
    assert score(TokenF1(), completion, "Eiffel Tower") == pytest.approx(f1)


def test_answers_empty_after_normalisation_equal_only_each_other():
    for scorer in (ExactMatch(), TokenF1()):
        assert score(scorer, "", "the") == score(scorer, "A!", "") == 1
        assert score(scorer, "a cat", "the") == 0


@pytest.mark.parametrize(
    ("option", "completion"),
    [("ignore_case", "red hat"), ("ignore_punctuation", "Red Hat!"), ("ignore_articles", "the Red Hat")],
)
def test_each_normalisation_can_be_switched_off(option, completion):
    assert score(ExactMatch(), completion, "Red Hat") == 1
    assert score(ExactMatch(**{option: False}), completion, "Red Hat") == 0
    assert score(TokenF1(**{option: False}), completion, "Red Hat") < 1


def test_long_answers_are_not_truncated():
    long = "x " * 10_000
    assert score(ExactMatch(), long + "a cat", long + "a dog") == 0
    assert score(TokenF1(), long, long) == 1


# Embeddings


def test_similarity_is_the_cosine_clipped_at_0():
    scorer = EmbeddingSimilarity(letter_counts)
    assert score(scorer, "ab", "a") == pytest.approx(1 / math.sqrt(2))
    assert score(scorer, "ab", "c", "a", "bbaa") == pytest.approx(1)
    assert score(scorer, "xyz", "a") == 0  # no letter that the embedder counts
    signed = EmbeddingSimilarity(lambda texts: [[len(text) - 2.0] for text in texts])
    assert (score(signed, "a", "abc"), score(signed, "abcd", "abc")) == (0, 1)


def test_each_text_of_a_batch_is_embedded_once():
    embedded = []

    def counting(texts):
        embedded.extend(texts)
        return letter_counts(texts)

    batch = TextBatch.from_texts(["a", "a", "b", "c"], references=[["a", "b"], ["a"], ["b"], []])
    np.testing.assert_allclose(EmbeddingSimilarity(counting)(batch), [1, 1, 1, np.nan])
    assert sorted(embedded) == ["a", "b"]


def test_wordllama_scores_a_paraphrase_above_another_topic():
    scorer = EmbeddingSimilarity()
    wanted = "The cat sat on the mat."
    near, far = score(scorer, "A kitten was sitting on a rug.", wanted), score(scorer, "Stock prices fell.", wanted)
    assert near > 0.3 > 0.1 > far


def test_wordllama_gives_unit_vectors_that_do_not_depend_on_the_batch():
    embedder = WordLlamaEmbedder()
    together = embedder(["a cat", "the quick brown fox " * 10, ""])
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 0], rtol=1e-6)
    np.testing.assert_array_equal(embedder(["a cat"])[0], together[0])
    assert len(pickle.dumps(embedder)) < 1_000
    assert embedder([]).shape == (0, 256)


def test_wordllama_is_read_without_running_the_package_or_torch():
    code = (
        "import sys; from textgym.scorers import EmbeddingSimilarity; EmbeddingSimilarity(); "
        "print(sorted(set(sys.modules) & {'wordllama', 'torch', 'requests'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_missing_wordllama_or_one_without_its_files_is_an_error_with_the_command_that_installs_it(
    has_folder, tmp_path
):
    if has_folder:
        (tmp_path / "wordllama").mkdir()
        (tmp_path / "wordllama" / "__init__.py").touch()
    keep = f"[{str(tmp_path)!r}]" if has_folder else "[]"
    code = f"""
import importlib.util, sys
import tokenizers, safetensors.numpy, textgym.scorers.reference.similarity as reference
sys.path[:] = {keep}
reference.EmbeddingSimilarity()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: embeddings need the package wordllama" in done.stderr


@pytest.fixture(scope="module")
def encoder():
    """Return a small random encoder with its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)
    return transformers.BertModel(config), tokenizer


def test_an_encoder_gives_the_mean_of_its_last_hidden_states(encoder):
    torch = pytest.importorskip("torch")
    model, tokenizer = encoder
    model.eval()
    texts = ["a cat", "the dogs ran home and slept well", "", "a cat"]
    vectors = EncoderEmbedder(model, tokenizer, batch_size=2)(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = tokenizer(text)["input_ids"]
        if not ids:
            assert not vector.any()
            continue
        with torch.no_grad():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_text_longer_than_the_encoder_can_take_is_cut(encoder):
    embedder = as_embedder(encoder)
    first, second = embedder(["cat " * 500, "cat " * 1000])
    np.testing.assert_array_equal(first, second)
    short = EncoderEmbedder(*encoder, max_tokens=2)(["a cat sat on a mat", "a cat sat on a mat and slept"])
    np.testing.assert_allclose(short[0], short[1], atol=1e-6)


def test_an_encoder_in_training_mode_is_run_without_dropout_and_not_cached(encoder):
    torch = pytest.importorskip("torch")
    model, tokenizer = encoder
    embedder = EncoderEmbedder(model, tokenizer)
    model.train()
    before = embedder(["a cat"])
    assert model.training
    np.testing.assert_array_equal(embedder(["a cat"]), before)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight.add_(1.0)
        model.embeddings.word_embeddings.weight.mul_(-1.0)
    assert np.abs(embedder(["a cat"]) - before).max() > 0.01
    model.eval()


def test_an_encoder_loaded_by_folder_stays_out_of_pickles_and_gives_the_same_from_memory():
    pytest.importorskip("torch")
    embedder = EncoderEmbedder(TINY)
    first = embedder(["a cat", "a dog"])
    np.testing.assert_array_equal(embedder(["a dog", "a cat"]), first[::-1])
    copy = pickle.loads(pickle.dumps(embedder))
    assert len(pickle.dumps(embedder)) < 1_000
    np.testing.assert_allclose(copy(["a cat", "a dog"]), first, atol=1e-6)


def test_vectors_of_a_function_are_scaled_to_length_1():
    np.testing.assert_allclose(
        as_embedder(letter_counts)(["aa", "ab", ""]), [[1, 0, 0], [0.5**0.5, 0.5**0.5, 0], [0] * 3]
    )


@pytest.mark.parametrize("result", [[[1.0, 0.0]], [1.0, 2.0], [[1.0], [float("nan")]]])
def test_a_function_that_does_not_return_a_vector_for_each_text_is_an_error(result):
    with pytest.raises(ValueError, match="the embedder returned shape"):
        CallableEmbedder(lambda texts: result)(["a", "b"])


def test_an_embedder_is_returned_unchanged():
    embedder = CallableEmbedder(letter_counts)
    assert as_embedder(embedder) is embedder


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("wordlama", ValueError, "unknown embedder 'wordlama'; did you mean 'wordllama'"),
        ("nobody/no-such-encoder", ValueError, "no encoder 'nobody/no-such-encoder' on this machine"),
        (5, TypeError, "embedder is of type int; expected 'wordllama'"),
        (WordLlamaEmbedder, TypeError, "embedder is of type type"),
        (("model", None), ValueError, "no encoder 'model' on this machine"),
        ((5, None), TypeError, "expected a loaded model and its tokenizer, got int and NoneType"),
    ],
)
def test_invalid_embedders_are_rejected(spec, error, message):
    with pytest.raises(error, match=message):
        EmbeddingSimilarity(spec)


def test_an_encoder_without_its_tokenizer_is_rejected(encoder):
    with pytest.raises(TypeError, match="embedder is of type BertModel"):
        as_embedder(encoder[0])
    with pytest.raises(TypeError, match="expected a loaded model and its tokenizer, got BertModel and NoneType"):
        EncoderEmbedder(encoder[0])


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_tokens": 0}])
def test_an_encoder_needs_positive_sizes(options):
    with pytest.raises(ValueError, match="batch_size and max_tokens must be positive"):
        EncoderEmbedder(TINY, **options)
