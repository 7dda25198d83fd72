"""Chat templates in tasks: the prompt, the end of a turn, the text between two turns."""

import pytest
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import textgym
from textgym.tasks import TASKS
from textgym.tasks.keywords import chat_template
from textgym.tokenizers import ChatTemplate

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
FORGETFUL = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}</s>{% endif %}{% endfor %}"


def some_words():
    task = TASKS["dialogue"]
    texts = [task.instruction, ": user assistant model Hello! Is there more?"]
    return {word for text in texts for word in text.split()}


def chat_tokenizer(template, special, eos):
    """Return a tokenizer of words with a chat template."""
    model = WordLevel({word: i for i, word in enumerate(["[UNK]", *sorted(some_words())])}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = Whitespace()
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, unk_token="[UNK]", chat_template=template, bos_token=special[0]
    )


@pytest.fixture(scope="module")
def chatml():
    return chat_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")


@pytest.fixture(scope="module")
def gemma():
    return chat_tokenizer(GEMMA, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<eos>")


def test_the_prompt_is_the_rendered_instruction(chatml):
    env = textgym.TextGenEnv(tokenizer=chatml, task="translation", split="eval", level=1)
    env.reset(seed=0)
    sample = env.core.samples[0]
    asked = f"Translate this sentence into French. Write nothing but the translation.\n\n{sample.metadata['source']}"
    assert sample.prompt == f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    assert sample.references == (sample.metadata["target"],)


def test_the_users_keywords_override_the_tasks_chat_keywords(chatml):
    env = textgym.TextGenEnv(tokenizer=chatml, task="dialogue", max_new_tokens=7)
    assert (env.config.max_prompt_tokens, env.config.max_reply_tokens, env.max_new_tokens) == (128, 48, 7)


def test_own_data_is_rendered_with_the_chat_template(chatml):
    rows = [{"source": "Hello!", "target": "Bonjour!"}]
    env = textgym.TextGenEnv(tokenizer=chatml, task="translation", data=rows)
    assert env.core.components.prompts[0].prompt.endswith("\n\nHello!<|im_end|>\n<|im_start|>assistant\n")


def test_chat_false_uses_the_plain_prompts(chatml):
    env = textgym.TextGenEnv(tokenizer=chatml, task="qa", chat=False)
    assert env.core.components.prompts[0].prompt.endswith("\nAnswer:")


def test_a_tokenizer_without_a_template_uses_the_plain_prompts():
    for tokenizer in ("char", "byte"):
        env = textgym.TextGenEnv(tokenizer=tokenizer, task="translation", max_prompt_tokens=200)
        assert env.core.components.prompts[0].prompt.startswith("English: ")
    assert chat_template("tiny", None, None) is None


def test_the_template_of_a_named_model_is_found(chatml, tmp_path):
    chatml.save_pretrained(tmp_path)
    for name in (tmp_path, str(tmp_path)):
        assert isinstance(chat_template(None, name, None), ChatTemplate)
        assert isinstance(chat_template(name, None, True), ChatTemplate)
    env = textgym.TextGenEnv(tokenizer=str(tmp_path), task="translation")
    assert env.core.components.prompts[0].prompt.startswith("<|im_start|>user\n")


def test_an_unknown_model_raises():
    with pytest.raises(ValueError, match="unknown tokenizer 'tinny'; did you mean 'tiny'"):
        textgym.TextGenEnv(model="tinny", task="qa")


def test_the_dialogue_equals_the_rendered_template(chatml):
    template = ChatTemplate(chatml)
    assert template.reply_format == "\n<|im_start|>user\n{reply}<|im_end|>\n<|im_start|>assistant\n"
    messages = [("user", "Hello."), ("assistant", "What?"), ("user", "Bread.")]
    whole = template.prompt("Hello.") + "What?<|im_end|>" + template.reply_format.replace("{reply}", "Bread.")
    rendered = chatml.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages], tokenize=False, add_generation_prompt=True
    )
    assert whole == rendered


def test_the_end_of_turn_token_of_the_template_is_the_environments_eos(gemma):
    env = textgym.TextGenEnv(tokenizer=gemma, task="dialogue", level=1)
    assert env.eos_token_id == gemma.convert_tokens_to_ids("<end_of_turn>")
    assert gemma.eos_token == "<eos>"
    assert env.config.reply_format == "\n<start_of_turn>user\n{reply}<end_of_turn>\n<start_of_turn>model\n"
    env.reset(seed=0)
    *_, terminated, _, _ = env.step(gemma.eos_token_id)
    assert not terminated
    env.step(env.eos_token_id)
    assert len(env.core.user_turns.replies[0]) == 1


def test_a_templates_space_before_the_end_of_a_turn_is_not_in_the_reply_format():
    tokenizer = chat_tokenizer(LLAMA_2, ["<s>", "</s>"], "</s>")
    assert ChatTemplate(tokenizer).reply_format == "<s>[INST] {reply} [/INST]"


@pytest.mark.parametrize("template", [PLAIN, FORGETFUL])
def test_a_template_in_which_no_special_token_ends_a_turn_raises(template):
    with pytest.raises(ValueError, match="no special token ends a turn in the model's chat template"):
        ChatTemplate(chat_tokenizer(template, ["<s>", "</s>"], "</s>")).reply_format  # noqa: B018
