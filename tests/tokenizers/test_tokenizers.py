"""The tokenizer contract for our own tokenizers and for each family of Hugging Face tokenizers."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

import textgym.tokenizers
from textgym import TextGenEnv
from textgym.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    PaddedTokenizer,
    Tokenizer,
    TokenizersTokenizer,
    TransformersTokenizer,
    WordTokenizer,
    as_tokenizer,
    embedded_lm_path,
    token_ids,
)
from textgym.tokenizers.huggingface import BYTE_OF_CHARACTER

CORPUS = ["The cat sat on the mat, and the dog's ball rolled away.", "A naïve café — 😀 日本語 unaffable runner"] * 5
SENTENCE = "the cat sat on the mat"
EMOJI = "a😀é👩\u200d🚀日"


def byte_level_bpe() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_piece() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[EOS]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentence_piece_bpe() -> LibraryTokenizer:
    """Build a tokenizer like Llama 2's: a space before the text, byte fallback."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *sorted(set("".join(CORPUS[:1])) | {"▁"})]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "c"), ("a", "t"), ("▁c", "at")]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *("".join(pair) for pair in merges)])}
    tokenizer = LibraryTokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def bpe_with_word_ends() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_level() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False))
    return tokenizer


FAMILIES = {
    build.__name__: build()
    for build in (byte_level_bpe, word_piece, unigram, sentence_piece_bpe, bpe_with_word_ends, word_level)
}


def in_transformers(tokenizer: LibraryTokenizer, **options: str) -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=LibraryTokenizer.from_str(tokenizer.to_str()), **options
    )


def slow_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """Build CTRL's tokenizer, which is implemented in Python only; ``@@`` marks a word that continues."""
    pieces = [
        "<unk>",
        "the</w>",
        "cat</w>",
        "c@@",
        "at</w>",
        *(f"{c}@@" for c in "theats"),
        *(f"{c}</w>" for c in "abcs"),
    ]
    vocabulary = {piece.replace("</w>", ""): i for i, piece in enumerate(dict.fromkeys(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\na t</w>\nc at</w>\n")
    return transformers.CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def every_tokenizer() -> dict[str, Tokenizer]:
    ours: dict[str, Tokenizer] = {
        "char": CharTokenizer(),
        "byte": ByteTokenizer(),
        "word": WordTokenizer.from_texts([*CORPUS, SENTENCE]),
        "padded": PaddedTokenizer(ByteTokenizer(), 300),
        "byt5": as_tokenizer(transformers.ByT5Tokenizer()),
    }
    fast: dict[str, Tokenizer] = {name: as_tokenizer(tokenizer) for name, tokenizer in FAMILIES.items()}
    through: dict[str, Tokenizer] = {
        f"transformers_{n}": TransformersTokenizer(in_transformers(t)) for n, t in FAMILIES.items()
    }
    return ours | fast | through


TOKENIZERS = every_tokenizer()
all_tokenizers = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


# The contract ---------------------------------------------------------------------------------------------------


@all_tokenizers
def test_every_tokenizer_satisfies_the_protocol(tokenizer: Tokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.token_mask.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_mask.dtype == np.bool_
    assert tokenizer.token_mask.any()
    assert tokenizer.eos_token_id is None or tokenizer.token_mask[tokenizer.eos_token_id]


@all_tokenizers
def test_encode_returns_tokens_as_python_integers(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat")
    assert type(ids) is list
    assert {type(i) for i in ids} == {int}
    assert tokenizer.token_mask[ids].all()


@all_tokenizers
def test_the_texts_of_two_parts_concatenate_to_the_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(SENTENCE)
    whole = tokenizer.decode(ids)
    for cut in range(len(ids) + 1):
        assert tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:]) == whole
    assert whole.split() == SENTENCE.split()


@all_tokenizers
def test_empty_ids_and_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([]) == ""
    assert tokenizer.encode("") == []


@all_tokenizers
def test_eos_and_ids_without_a_token_decode_to_nothing(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat")
    without = [*np.flatnonzero(~tokenizer.token_mask).tolist(), tokenizer.vocab_size, tokenizer.vocab_size + 7, -1]
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for i in [*without, *eos]:
        assert tokenizer.decode([i]) == ""
        assert tokenizer.decode([*ids, i]) == tokenizer.decode(ids)
        assert tokenizer.token_text(i)


@all_tokenizers
def test_every_id_has_a_display_text(tokenizer: Tokenizer) -> None:
    assert all(isinstance(tokenizer.token_text(i), str) for i in range(tokenizer.vocab_size))


@all_tokenizers
def test_numpy_integers_can_be_decoded(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat")
    assert tokenizer.decode(np.array(ids)) == tokenizer.decode(ids)  # type: ignore[arg-type]


@all_tokenizers
def test_a_pickled_tokenizer_is_the_same(tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    ids = tokenizer.encode("the cat")
    assert copy.encode("the cat") == ids
    assert copy.decode(ids) == tokenizer.decode(ids)
    np.testing.assert_array_equal(copy.token_mask, tokenizer.token_mask)


@pytest.mark.parametrize("name", [n for n in TOKENIZERS if n not in ("char", "word")])
def test_a_lone_surrogate_is_encoded_without_an_error(name: str) -> None:
    TOKENIZERS[name].encode("a\ud800b")


# UTF-8 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byte", "padded", "byte_level_bpe", "transformers_byte_level_bpe", "byt5"])
def test_an_incomplete_character_is_left_out_at_every_cut(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(EMOJI)
    assert tokenizer.decode(ids) == EMOJI
    texts = [tokenizer.decode(ids[:cut]) for cut in range(len(ids))]
    assert all(EMOJI.startswith(text) for text in texts)
    assert texts == sorted(texts, key=len)


def test_byte_fallback_is_decoded_in_the_same_way() -> None:
    tokenizer = TOKENIZERS["sentence_piece_bpe"]
    ids = tokenizer.encode("the 😀")
    assert tokenizer.decode(ids) == " the 😀"
    assert [tokenizer.decode(ids[:cut]) for cut in range(len(ids) - 3, len(ids))] == [" the "] * 3


def test_invalid_bytes_inside_a_text_are_replacement_characters() -> None:
    assert ByteTokenizer().decode([0x61, 0xFF, 0x62]) == "a\ufffdb"
    tokenizer = TOKENIZERS["byte_level_bpe"]
    start, letter = tokenizer.encode("é")[0], tokenizer.encode("b")
    assert tokenizer.decode([start, *letter]) in ("\ufffdb", "éb")


def test_a_lone_surrogate_is_encoded_as_one_replacement_character() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udc00")) == "a\ufffdb\ufffd"


@given(st.text())
def test_bytes_round_trip_any_text(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(alphabet=[chr(i) for i in range(32, 127)] + ["\n"]))
def test_characters_round_trip_any_text_of_the_alphabet(text: str) -> None:
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_byte_level_bpe_round_trips_any_text(text: str) -> None:
    tokenizer = TOKENIZERS["byte_level_bpe"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.integers(0, 319)))
def test_the_byte_table_decodes_as_the_library_does(ids: list[int]) -> None:
    library = FAMILIES["byte_level_bpe"].decode(ids, skip_special_tokens=True)
    assert library.startswith(TOKENIZERS["byte_level_bpe"].decode(ids))
    assert library.rstrip("\ufffd") == TOKENIZERS["byte_level_bpe"].decode(ids).rstrip("\ufffd")


@given(st.lists(st.integers(0, 256)), st.integers(0, 40))
def test_further_bytes_only_append_to_a_text(ids: list[int], cut: int) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(ids).startswith(tokenizer.decode(ids[:cut]))


def test_the_byte_alphabet_equals_the_librarys() -> None:
    assert {chr(i) for i in BYTE_OF_CHARACTER} == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_OF_CHARACTER.values()) == list(range(256))


# Our own --------------------------------------------------------------------------------------------------------


def test_a_character_outside_the_alphabet_is_reported_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"character 'é' at position 3 .* alphabet of 96 characters"):
        CharTokenizer().encode("café")


def test_an_empty_alphabet_or_a_duplicate_character_is_rejected() -> None:
    with pytest.raises(ValueError, match="empty"):
        CharTokenizer("")
    with pytest.raises(ValueError, match="'a' 2 times"):
        CharTokenizer("aba")


def test_an_unknown_word_is_unk() -> None:
    tokenizer = WordTokenizer(["the", "cat"])
    assert tokenizer.encode("the dog\n cat") == [0, tokenizer.unk_token_id, 1]
    assert tokenizer.decode([0, tokenizer.unk_token_id]) == " the <unk>"
    assert tokenizer.encode("<unk>") == [tokenizer.unk_token_id]


@pytest.mark.parametrize("vocabulary", [[], ["a", "a"], ["a b"], [""], ["<unk>"], ["<eos>"]])
def test_an_invalid_vocabulary_is_rejected(vocabulary: list[str]) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        WordTokenizer(vocabulary)


def test_from_texts_orders_words_by_frequency() -> None:
    assert WordTokenizer.from_texts(["b a", "c a <unk>"], max_words=2).vocabulary == ("a", "b")
    with pytest.raises(ValueError, match="empty"):
        WordTokenizer.from_texts([" "])


def test_special_tokens_and_bytes_have_visible_display_texts() -> None:
    assert ByteTokenizer().token_text(256) == "<eos>"
    assert ByteTokenizer().token_text(0xC3) == r"\xc3"
    assert CharTokenizer().token_text(96) == "<eos>"
    assert TOKENIZERS["byte_level_bpe"].token_text(0) == "<|endoftext|>"
    assert PaddedTokenizer(ByteTokenizer(), 300).token_text(299) == "<unused 299>"


# Width ----------------------------------------------------------------------------------------------------------


def test_padding_of_the_vocabulary_is_masked() -> None:
    tokenizer = as_tokenizer("char", vocab_size=128)
    assert tokenizer.vocab_size == 128
    assert tokenizer.token_mask.sum() == 97
    assert not tokenizer.token_mask[97:].any()
    assert as_tokenizer("char", vocab_size=97).vocab_size == 97


def test_a_vocabulary_too_small_for_the_tokenizer_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"of 100 ids .* highest id is 256"):
        as_tokenizer("byte", vocab_size=100)


def test_gaps_in_the_vocabulary_are_masked() -> None:
    library = LibraryTokenizer(models.WordLevel({"<unk>": 0, "the": 3}, unk_token="<unk>"))
    assert as_tokenizer(library).token_mask.tolist() == [True, False, False, True]
    assert as_tokenizer(library).token_text(1) == "<unused 1>"


# Hugging Face ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_both_adapters_agree(name: str) -> None:
    direct, through = TOKENIZERS[name], TOKENIZERS[f"transformers_{name}"]
    for text in ("the cat", "A naïve café — 😀", "dog's  ball\n"):
        ids = direct.encode(text)
        assert through.encode(text) == ids
        assert through.decode(ids) == direct.decode(ids)


def test_a_completion_keeps_the_leading_space_of_its_first_token() -> None:
    tokenizer = TOKENIZERS["word_piece"]
    prompt, completion = tokenizer.encode("the cat"), tokenizer.encode("sat")
    assert tokenizer.decode(prompt + completion) == " the cat sat"
    assert tokenizer.decode(completion) == " sat"
    assert tokenizer.decode(tokenizer.encode("unaffable")[1:])[:1] != " "


def test_a_slow_tokenizer_keeps_the_leading_space_too(tmp_path: Path) -> None:
    tokenizer = as_tokenizer(slow_tokenizer(tmp_path))
    assert type(tokenizer) is TransformersTokenizer
    ids = tokenizer.encode("the cat")
    assert tokenizer.decode(ids) == " the cat"
    assert tokenizer.decode(ids[-1:]) == " cat"


def test_special_tokens_of_a_transformers_tokenizer_are_kept() -> None:
    spec = in_transformers(FAMILIES["byte_level_bpe"], eos_token="<|endoftext|>", bos_token="<|begin|>")
    tokenizer = as_tokenizer(spec)
    assert type(tokenizer) is TokenizersTokenizer
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id) == (spec.eos_token_id, spec.bos_token_id)
    assert tokenizer.decode([spec.bos_token_id, *tokenizer.encode("a"), spec.eos_token_id]) == "a"


def test_truncation_and_padding_of_a_library_tokenizer_are_not_applied() -> None:
    library = byte_level_bpe()
    library.enable_truncation(2)
    library.enable_padding(length=50)
    assert as_tokenizer(library).encode("the cat sat") == TOKENIZERS["byte_level_bpe"].encode("the cat sat")
    assert library.truncation is not None, "the caller's object is unchanged"


def test_an_added_token_that_is_not_special_is_decoded() -> None:
    library = byte_level_bpe()
    library.add_tokens([AddedToken("<tool é>", special=False)])
    tokenizer = as_tokenizer(library)
    assert tokenizer.decode(tokenizer.encode("a<tool é>b")) == "a<tool é>b"


def test_an_eos_outside_the_vocabulary_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"eos_token_id 999 .* highest id is 319"):
        TokenizersTokenizer(FAMILIES["byte_level_bpe"], eos_token_id=999)
    with pytest.raises(ValueError, match="vocabulary is empty"):
        TokenizersTokenizer(LibraryTokenizer(models.BPE()))


# Names ----------------------------------------------------------------------------------------------------------


def folder_with(folder: Path, **files: dict[str, object]) -> Path:
    FAMILIES["byte_level_bpe"].save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_width_eos_and_bos_are_read_from_the_folders_config(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config={"vocab_size": 384, "eos_token_id": [0, 5], "bos_token_id": 0})
    for spec in (folder, str(folder), folder / "tokenizer.json"):
        tokenizer = as_tokenizer(spec)
        assert (tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.bos_token_id) == (384, 0, 0)  # type: ignore[attr-defined]
        assert tokenizer.token_mask.sum() == 320
    assert as_tokenizer(folder, vocab_size=400).vocab_size == 400
    with pytest.raises(ValueError, match=r"of 256 ids .* highest id is 319"):
        as_tokenizer(folder, vocab_size=256)


def test_the_tokenizers_eos_has_priority_over_the_models(tmp_path: Path) -> None:
    config = {"text_config": {"vocab_size": 320}, "eos_token_id": 7}
    folder = folder_with(tmp_path, config=config, tokenizer_config={"eos_token": {"content": "<|endoftext|>"}})
    assert as_tokenizer(folder).eos_token_id == 0
    assert as_tokenizer(folder).vocab_size == 320


def test_a_folder_without_config_uses_the_tokenizers_width_and_the_usual_eos(tmp_path: Path) -> None:
    tokenizer = as_tokenizer(folder_with(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.eos_token_id) == (320, 0)


def test_a_folder_is_loaded_without_transformers(tmp_path: Path) -> None:
    code = (
        "import sys; from textgym.tokenizers import as_tokenizer;"
        f"as_tokenizer({str(folder_with(tmp_path))!r}).encode('a');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_of_a_slow_tokenizer_is_loaded_with_transformers(tmp_path: Path) -> None:
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    transformers.T5Config(vocab_size=400).save_pretrained(tmp_path)
    tokenizer = as_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
    assert tokenizer.vocab_size == 400


@pytest.mark.parametrize("name", ["bite", "no/such-model", "no_such_folder/"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"unknown tokenizer .* Known: byte, char, tiny, tiny-early\. Also accepted: a folder"
    ):
        as_tokenizer(name)


@pytest.mark.parametrize("spec", [None, 5, ["a"], {"a": 1}, object()])
def test_as_tokenizer_rejects_other_objects(spec: object) -> None:
    with pytest.raises(TypeError, match="expected a tokenizer or the name of one"):
        as_tokenizer(spec)


def test_a_class_instead_of_a_tokenizer_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"write ByteTokenizer\(\)"):
        as_tokenizer(ByteTokenizer)


def test_an_object_of_the_protocol_is_returned_unchanged() -> None:
    tokenizer = CharTokenizer("ab")
    assert as_tokenizer(tokenizer) is tokenizer


def test_an_unknown_embedded_model_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"unknown embedded language model 'tinny'; did you mean 'tiny'\?"):
        embedded_lm_path("tinny")


# Single tokens --------------------------------------------------------------------------------------------------


def test_token_ids_finds_tokens_by_their_display_text() -> None:
    tokenizer = TOKENIZERS["word_piece"]
    assert [tokenizer.decode([i]) for i in token_ids(tokenizer, [" the", " cat"])] == [" the", " cat"]
    assert token_ids(ByteTokenizer(), ["a", "<eos>", r"\xff", 97]).tolist() == [97, 256, 255]
    assert token_ids(ByteTokenizer(), []).shape == (0,)


def test_a_text_of_several_tokens_is_rejected_with_its_tokens() -> None:
    with pytest.raises(ValueError, match=r"'ab' is not a single token; it is encoded as \['a', 'b'\]"):
        token_ids(ByteTokenizer(), ["ab"])
    with pytest.raises(ValueError, match="'é' is not a single token of this tokenizer"):
        token_ids(CharTokenizer(), ["é"])


def test_an_id_that_is_not_a_token_is_rejected() -> None:
    with pytest.raises(ValueError, match="id 257 is not a token of the vocabulary of 300 ids"):
        token_ids(PaddedTokenizer(ByteTokenizer(), 300), [257])
    with pytest.raises(ValueError, match="id -1 is not"):
        token_ids(ByteTokenizer(), [-1])


def test_token_ids_rejects_one_text_and_other_types() -> None:
    with pytest.raises(TypeError, match=r"write \['abc'\]"):
        token_ids(ByteTokenizer(), "abc")
    with pytest.raises(TypeError, match="float"):
        token_ids(ByteTokenizer(), [1.5])  # type: ignore[list-item]


def test_exported_names_are_sorted_and_importable() -> None:
    names = textgym.tokenizers.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(textgym.tokenizers, name) for name in names)


def test_environments_of_one_model_share_its_tokenizer(tmp_path):
    first, second = (TextGenEnv(model="tiny", prompts=["a"]) for _ in range(2))
    assert first.tokenizer is second.tokenizer
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(textgym.tokenizers.embedded_lm_path("tiny") / name, tmp_path / name)
    before = as_tokenizer(tmp_path)
    assert as_tokenizer(tmp_path) is before
    (tmp_path / "config.json").write_text('{"vocab_size": 3000}')  # a changed file gives a new tokenizer
    assert as_tokenizer(tmp_path).vocab_size == 3000
