"""Simulated users: functions, scripts and language models."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

import textgym.users
from fixtures import small_lm
from textgym.batch import TextBatch
from textgym.lm import LMStream, load_lm, sample
from textgym.prompts import Sample
from textgym.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    ChatTemplate,
    as_tokenizer,
    embedded_lm_path,
    find_chat_template,
)
from textgym.users import FunctionUser, LMUser, Reply, ScriptedUser, User, as_user
from textgym.users.language_model import exchanged_roles, plain_dialogue

EOS = 256
TEXTS = ["Hello there!", "Once there was a dog. It ran.", "No.", "I have apples and pears. What do you want?"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def texts_of(replies):
    return [reply.text for reply in replies]


# Functions and scripts


def test_a_function_receives_the_messages_and_returns_the_reply():
    asked = []
    user = FunctionUser(lambda messages: asked.append(messages) or "More!")
    assert user(TextBatch.from_texts(["One."], ["Count."]), rngs(0)) == [Reply("More!", None)]
    assert asked == [[{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One."}]]


def test_a_function_ends_the_dialogue_with_none_or_with_an_outcome():
    answers = {"a": None, "b": Reply("Thanks", "success"), "c": ""}
    user = FunctionUser(lambda messages: answers[messages[-1]["content"]])
    assert user(TextBatch.from_texts(["a", "b", "c"]), rngs(0, 1, 2)) == [
        Reply("", "user_left"), Reply("Thanks", "success"), Reply("", None),
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [7, b"text", ["text"]])
def test_a_function_that_returns_another_type_is_rejected(answer):
    with pytest.raises(TypeError, match="must return a str, a Reply or None, got "):
        FunctionUser(lambda messages: answer)(TextBatch.from_texts(["a"]), rngs(0))


def haggler(goal, agent_turns):
    if goal["wants"] in agent_turns[-1]:
        return Reply("Thank you!", "success")
    return Reply("Goodbye.", "failure") if len(agent_turns) == 3 else Reply(f"No, {goal['wants']}!")


def test_a_script_receives_the_goal_and_the_agents_turns():
    batch = TextBatch.from_texts(["a pear", "a plum"], metadata=[{"wants": "pear"}] * 2)
    assert ScriptedUser(haggler)(batch, []) == [Reply("Thank you!", "success"), Reply("No, pear!")]


def test_as_user_accepts_users_and_functions_of_messages():
    scripted = ScriptedUser(haggler)
    assert as_user(scripted) is scripted
    assert isinstance(scripted, User)
    assert isinstance(as_user(lambda messages: None), FunctionUser)
    assert isinstance(as_user(plain_dialogue), FunctionUser)  # a function is always one of messages

    class Answers:
        def __call__(self, messages):
            return messages[-1]["content"]

    assert texts_of(as_user(Answers())(TextBatch.from_texts(["a"]), [])) == ["a"]


@pytest.mark.parametrize("spec", ["tiny", None, 3, LMUser, ScriptedUser])
def test_as_user_rejects_other_objects(spec):
    with pytest.raises(TypeError, match=r"expected f\(messages\) -> str or None, or a User"):
        as_user(spec)


# A language model as the user


@pytest.fixture(scope="module")
def tiny_user():
    return LMUser("tiny", max_new_tokens=12)


def asked(user, texts, seeds):
    return user(TextBatch.from_texts(texts, ["Hi."] * len(texts)), rngs(*seeds))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_a_reply_depends_on_its_own_text_and_generator_only(temperature):
    user = LMUser("tiny", max_new_tokens=12, temperature=temperature)
    together = asked(user, TEXTS, [5, 6, 7, 8])
    assert len(set(together)) > 1
    assert [asked(user, [text], [seed])[0] for text, seed in zip(TEXTS, [5, 6, 7, 8], strict=True)] == together
    assert asked(user, TEXTS[::-1] * 2, [8, 7, 6, 5] * 2) == together[::-1] * 2


def test_replies_depend_on_the_generators_and_leave_the_global_one_alone(tiny_user):
    state = torch.get_rng_state()
    first, again = asked(tiny_user, TEXTS, range(4)), asked(tiny_user, TEXTS, range(4))
    assert first == again != asked(tiny_user, TEXTS, range(4, 8))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_reply_draws_max_new_tokens_numbers_from_its_generator(tiny_user):
    rng, expected = np.random.default_rng(3), np.random.default_rng(3)
    tiny_user(TextBatch.from_texts(["Hi!"]), [rng])
    expected.random(12)
    assert rng.bit_generator.state == expected.bit_generator.state
    LMUser("tiny", temperature=0, max_new_tokens=2)(TextBatch.from_texts(["Hi!"]), [rng])
    assert rng.bit_generator.state == expected.bit_generator.state


def test_temperature_zero_is_greedy_decoding():
    user = LMUser("tiny", temperature=0, max_new_tokens=6, instruction="")
    [reply] = asked(user, ["The dog ran home."], [0])
    tokenizer, model = as_tokenizer("tiny"), load_lm("tiny")
    ids = tokenizer.encode("User: Hi.\nAssistant: The dog ran home.\nUser:")
    written = []
    for _ in range(6):
        logits = model(torch.tensor([ids + written])).logits[0, -1]
        written.append(int(logits.argmax()))
    assert reply.text == tokenizer.decode(written).strip().partition("\n")[0]


def letters_lm(wanted):
    """Return a model of 8 ids (7 is EOS) that generates ``wanted`` for any input, each e times the next."""
    model = small_lm()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.transformer.ln_f.bias.data[0] = 1.0
    head = torch.nn.Linear(32, 8, bias=False)
    head.weight.data.zero_()
    for rank, token in enumerate(wanted):
        head.weight.data[token, 0] = 20.0 - rank
    model.lm_head = head
    return model


def test_eos_ends_a_reply_and_is_not_part_of_it():
    letters = CharTokenizer("abcdefg")
    assert asked_letters(LMUser(letters_lm([7]), letters, render=joined, max_new_tokens=5)) == ""
    assert asked_letters(LMUser(letters_lm([2]), letters, render=joined, max_new_tokens=5)) == "ccccc"


def joined(instruction, messages):
    return "".join(message["content"] for message in messages)


def asked_letters(user):
    return user(TextBatch.from_texts(["ab"], ["cab"]), rngs(0))[0].text


LINES = {"a": 0, "b": 1, "\n": 2, "c": 3, "d": 4, "e": 5, "f": 6, "<eos>": 7}


def test_a_reply_is_the_first_nonblank_line_without_a_chat_template_and_the_whole_text_with_one():
    library = LibraryTokenizer(BPE(LINES, []))
    library.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, eos_token="<eos>", chat_template="ab")
    model, batch = letters_lm([0, 2]), TextBatch.from_texts(["a"] * 8)
    lines = texts_of(LMUser(model, tokenizer, render="plain", instruction="")(batch, rngs(*range(8))))
    whole = texts_of(LMUser(model, tokenizer)(batch, rngs(*range(8))))
    assert [text.partition("\n")[0] for text in whole] == lines
    assert all(set(line) == {"a"} for line in lines)
    assert all("\n" in text and len(text) > 10 for text in whole)


def test_the_first_phrase_that_a_reply_contains_gives_the_outcome():
    letters = CharTokenizer("abcdefg")
    model = letters_lm([2])
    user = LMUser(model, letters, render=joined, outcomes={"b": "no", "CC": "success", "c": "late"})
    assert user(TextBatch.from_texts(["ab"]), rngs(0)) == [Reply("c" * 16, "success")]
    user = LMUser(model, letters, render=joined, outcomes={"b": "no"})
    assert user(TextBatch.from_texts(["ab"]), rngs(0)) == [Reply("c" * 16, None)]


def test_ids_that_are_not_tokens_are_never_generated():
    user = LMUser(letters_lm([6, 2]), CharTokenizer("abcde"), render=joined, max_new_tokens=3)  # 6 and 7 are no tokens
    assert asked_letters(user) == "ccc"


def test_a_long_dialogue_is_truncated_on_the_left():
    letters = CharTokenizer("abcdefg")
    user = LMUser(small_lm(), letters, render=joined, max_new_tokens=8, temperature=0)  # 64 positions
    long, end = "abc" * 60, ("abc" * 60)[-56:]
    first, second = user(TextBatch.from_texts([long, end]), rngs(0, 1))
    assert first == second


def test_a_loaded_model_is_copied_and_training_the_original_changes_nothing():
    letters, model = CharTokenizer("abcdefg"), letters_lm([2])
    user = LMUser(model, letters, render=joined, max_new_tokens=3)
    model.lm_head.weight.data.zero_()
    assert asked_letters(user) == "ccc"
    assert next(model.parameters()).requires_grad


def test_replies_of_a_batch_end_independently_and_batch_sizes_may_grow(tiny_user):
    tiny_user = copy.deepcopy(tiny_user)
    few = asked(tiny_user, TEXTS[:1], [0])
    many = asked(tiny_user, TEXTS * 5, list(range(20)))
    assert many[:1] == few
    asked(tiny_user, [TEXTS[0] * 20], [0])
    assert asked(tiny_user, TEXTS[:1], [0]) == few
    assert tiny_user(TextBatch.from_texts([]), []) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda user: pickle.loads(pickle.dumps(user))])
@pytest.mark.parametrize(
    "make", [lambda: LMUser("tiny"), lambda: LMUser(small_lm(), CharTokenizer("abcdefg"), render=joined)]
)
def test_a_copy_gives_the_same_replies(copied, make):
    user = make()
    batch = TextBatch.from_texts(["abc", "cab"], ["a", "b"])
    expected = user(batch, rngs(0, 1))
    assert copied(user)(batch, rngs(0, 1)) == expected


def test_a_pickled_user_holds_the_models_name_only():
    assert len(pickle.dumps(LMUser("tiny"))) < 1_000


def test_the_instruction_may_depend_on_the_episodes_metadata():
    seen = []

    def shown(instruction, messages):
        seen.append((instruction, messages[-1]["content"]))
        return "a"

    user = LMUser(small_lm(), CharTokenizer("abcdefg"), render=shown, instruction=lambda goal: f"Buy {goal['wants']}.")
    user(TextBatch.from_texts(["a", "b"], metadata=[{"wants": "pears"}, {"wants": "tea"}]), rngs(0, 1))
    assert seen == [("Buy pears.", "a"), ("Buy tea.", "b")]


def chat_tokenizer(template=TEMPLATE):
    library = LibraryTokenizer.from_file(str(embedded_lm_path("tiny") / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer


MESSAGES = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": " Hi!\nWhat is it?"},
    {"role": "user", "content": "Tea."},
    {"role": "assistant", "content": " No."},
]


def test_a_chat_template_renders_the_dialogue_with_exchanged_roles(tmp_path):
    shown = "<user>Be a guest.\n<assistant>Hello.\n<user>Hi!\nWhat is it?\n<assistant>Tea.\n<user>No.\n<assistant>"
    assert exchanged_roles(ChatTemplate(chat_tokenizer()), "Be a guest.", MESSAGES) == shown
    assert exchanged_roles(ChatTemplate(chat_tokenizer()), "", MESSAGES) == shown.partition("\n")[2]
    chat_tokenizer().save_pretrained(tmp_path)
    assert exchanged_roles(find_chat_template(tmp_path), "Be a guest.", MESSAGES) == shown


@pytest.mark.parametrize("source", ["tiny", "byte", CharTokenizer("ab"), chat_tokenizer(None)])
def test_find_chat_template_returns_none_without_a_template(source):
    assert find_chat_template(source) is None


def test_a_plain_dialogue_has_one_line_per_message():
    shown = "User: Hello.\nAssistant: Hi! What is it?\nUser: Tea.\nAssistant: No.\nUser:"
    assert plain_dialogue("", MESSAGES) == shown
    assert plain_dialogue("Be a guest.", MESSAGES) == f"Be a guest.\n\n{shown}"


def test_the_tokenizers_template_is_the_default_format():
    model = load_lm("tiny")
    plain = LMUser(model, chat_tokenizer(), render="plain", temperature=0, max_new_tokens=4)
    chat = LMUser(model, chat_tokenizer(), temperature=0, max_new_tokens=4)
    batch = TextBatch.from_texts(["The dog ran home."], ["Hi."])
    assert plain(batch, rngs(0)) == LMUser("tiny", temperature=0, max_new_tokens=4)(batch, rngs(0))
    ids = as_tokenizer("tiny").encode(
        exchanged_roles(ChatTemplate(chat_tokenizer()), chat.instruction, chat_messages(batch))
    )
    logits = LMStream(model, 1, 256)(np.array([ids])).logits
    assert chat(batch, rngs(0))[0].text.startswith(as_tokenizer("tiny").decode([int(logits.argmax())]).strip())


def chat_messages(batch):
    return [{"role": "user", "content": batch.prompts[0]}, *batch.turns[0]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be an integer of at least 1, got 0"),
        ({"max_new_tokens": 1.5}, ValueError, "max_new_tokens must be an integer"),
        ({"max_new_tokens": 1024}, ValueError, "max_new_tokens is 1024, but the model has 1024 positions"),
        ({"temperature": -1.0}, ValueError, "temperature must be a finite number of at least 0, got -1.0"),
        ({"temperature": float("nan")}, ValueError, "temperature must be a finite number"),
        ({"instruction": 3}, TypeError, r"instruction must be a str or f\(metadata\) -> str, got 3"),
        ({"outcomes": ["bye"]}, TypeError, "outcomes must map phrases to end reasons"),
        ({"outcomes": {"bye": True}}, TypeError, "outcomes must map phrases to end reasons"),
        ({"outcomes": {" ": "success"}}, ValueError, "outcomes must not contain blank phrases"),
        ({"outcomes": {"bye": ""}}, ValueError, "outcomes must not contain blank phrases"),
        ({"render": "chat"}, ValueError, "render is 'chat', but the tokenizer has no chat template"),
        ({"render": "plan"}, ValueError, "unknown render 'plan'; did you mean 'plain'"),
        ({"model": "tinny"}, ValueError, "unknown model 'tinny'; did you mean 'tiny'"),
    ],
)
def test_wrong_arguments_are_rejected(arguments, error, message):
    with pytest.raises(error, match=message):
        LMUser(**{"model": "tiny"} | arguments)


def test_a_loaded_model_needs_its_tokenizer():
    with pytest.raises(TypeError, match=r"a loaded model needs tokenizer=.* got only GPT2LMHeadModel"):
        LMUser(small_lm())


@pytest.mark.parametrize("shown", ["", None])
def test_a_render_function_that_returns_no_text_is_rejected(shown):
    user = LMUser(small_lm(), CharTokenizer("abcdefg"), render=lambda instruction, messages: shown)
    with pytest.raises(ValueError, match="render must return a non-empty str"):
        user(TextBatch.from_texts(["a"]), rngs(0))


def test_tokens_are_sampled_from_given_uniform_numbers():
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log().repeat(4, 1)
    assert sample(logits, uniform=torch.tensor([0.1, 0.3, 0.6, 0.999])).tolist() == [0, 1, 2, 2]


def test_importing_users_does_not_import_torch():
    code = "import sys, textgym.users; print('torch' in sys.modules, 'LMUser' in dir(textgym.users))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        "False True\n"
    )
    with pytest.raises(AttributeError, match="has no attribute 'LmUser'"):
        _ = textgym.users.LmUser


def test_a_batch_splits_a_dialogue_into_turns():
    tokenizer = ByteTokenizer()
    row = np.array([[72, 97, EOS, 63, 98, 99]])
    batch = TextBatch(
        tokenizer, row, np.array([6]), np.array([1]), [Sample("H")], np.array([False]), None,
        np.array([[False, True, True, False, True, True]]), [["?"]],
    )  # fmt: skip
    assert batch.agent_turns == [["a", "bc"]]
    assert batch.num_actions.tolist() == [4]
    assert batch.turn_ended.tolist() == [False]
    assert [turn["content"] for turn in batch.turns[0]] == ["a", "?", "bc"]
    part = batch.select(np.array([0]))
    assert (part.agent_turns, part.turns, part.num_actions.tolist()) == (batch.agent_turns, batch.turns, [4])
