"""The training script of the embedded LMs: exact resume, a loss with the right gradients, whole words as tokens."""

import json

import pytest
import torch
from tokenizers import Tokenizer

import train_embedded_lm as script

SETTINGS = script.Settings(
    num_documents=400, width=16, num_layers=1, num_heads=1, num_positions=256, num_steps=6, batch_tokens=512,
    warmup_steps=2, agreement_steps=3, window_shares=((128, 0.5), (256, 0.5)),
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    script.write_corpus(SETTINGS, folder)
    script.write_tokenizer(folder)
    return folder


def test_a_run_that_was_killed_ends_with_the_same_weights(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "CHECKPOINT_STEPS", 2)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = script.train(SETTINGS, corpus, tmp_path / "whole")
    draw = script.draw_batch

    def killed(settings, ids, starts, step):
        if step == 5:
            raise KeyboardInterrupt
        return draw(settings, ids, starts, step)

    with monkeypatch.context() as patch:
        patch.setattr(script, "draw_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            script.train(SETTINGS, corpus, tmp_path / "killed")
    assert json.loads((tmp_path / "killed/checkpoint.json").read_text())["step"] == 4
    resumed = script.train(SETTINGS, corpus, tmp_path / "killed")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_each_word_of_the_corpus_is_one_token(corpus):
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    for text in script.read_corpus(corpus)[:100]:
        encoding = tokenizer.encode(text)
        assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
        words = [word for part in text.split(script.EOS) for word in tokenizer.pre_tokenizer.pre_tokenize_str(part)]
        assert len(encoding.ids) == len(words) + text.count(script.EOS), text


@pytest.mark.parametrize("size", [5, script.BLOCK, script.BLOCK + 7])
def test_the_loss_by_blocks_is_the_cross_entropy_with_its_gradients(size):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator).requires_grad_() for n in (size, 30))
    targets = torch.randint(30, (size,), generator=generator)
    loss = script.LinearCrossEntropy.apply(hidden, weight, targets)
    found = torch.autograd.grad(2 * loss, (hidden, weight))
    exact = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(2 * exact, (hidden, weight))
    assert loss.item() == pytest.approx(exact.item(), rel=1e-2)  # the product is computed in bfloat16
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.02 * float(other.abs().max()))


def test_names_and_pronouns_are_compared_among_themselves(corpus):
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    groups = script.word_groups(tokenizer)
    words = [{tokenizer.decode([token]).strip() for token in group.tolist()} for group in groups]
    assert {"Nadia", "Tom"} <= words[0]
    assert words[1:] == [{"he", "she"}, {"He", "She"}, {"his", "her", "him"}, {"His", "Her"}, {"himself", "herself"}]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(tokenizer.get_vocab_size(), 8, generator=generator)
    hidden = torch.randn(3, 8, generator=generator)
    targets = torch.tensor([groups[1][0], tokenizer.token_to_id("Ġand"), groups[0][2]])
    expected = (
        -sum(
            torch.log_softmax(hidden[row] @ weight[group].T, 0)[index]
            for row, group, index in ((0, groups[1], 0), (2, groups[0], 2))
        )
        / 3
    )
    torch.testing.assert_close(script.agreement_loss(hidden, weight, targets, groups), expected)


def test_another_work_folder_is_asked_for_when_the_settings_change(tmp_path):
    script.check_same_settings(SETTINGS, tmp_path)
    script.check_same_settings(SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="choose another --work-dir"):
        script.check_same_settings(script.MODELS["tiny"], tmp_path)
