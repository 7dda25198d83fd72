"""Shopping dialogues: good service succeeds, bad service fails, and listing everything does not help."""

import json
from dataclasses import asdict, replace

import pytest

from textgym.tasks.shop import (
    Item,
    ShoppingGoal,
    customer_opening,
    customer_reply,
    hand_over,
    optimal_reply,
    present_item,
    progress,
)
from textgym.tasks.shop_replies import parse_reply
from textgym.tasks.words import NUMBERS, colours, things
from world import shopping
from world.vocabulary import shops

LEVELS = (1, 2, 3)


def goal_of(*items, unsaid=(), manner=0):
    return ShoppingGoal(shop="market", items=items, unsaid=tuple(unsaid), manner=manner)


ONE = goal_of(Item(3, "red", "apple"))
TWO = goal_of(Item(3, "red", "apple"), Item(1, "", "pear"))
VAGUE = goal_of(Item(3, "red", "apple"), unsaid=("count", "quality"))


def play(goal, helper):
    turns = []
    while True:
        turns.append(helper(goal, turns))
        reply = customer_reply(goal, turns)
        if reply.outcome:
            return turns, reply
        assert len(turns) < 10


@pytest.mark.parametrize("level", LEVELS)
def test_the_best_helper_reaches_every_goal_without_a_mistake(level):
    for index in range(500):
        goal = shopping(3, index, level)
        turns, reply = play(goal, optimal_reply)
        assert reply.outcome == "success"
        assert progress(goal, turns) == 1.0
        assert len(turns) == len(goal.items) + len(goal.unsaid)
        done = [progress(goal, turns[:number]) for number in range(len(turns) + 1)]
        assert done == sorted(set(done))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fault", ["count", "thing", "quality"])
def test_a_helper_who_hands_over_something_else_fails(level, fault):
    for index in range(200):
        goal = shopping(3, index, level)

        def helper(goal, turns, fault=fault):
            item = present_item(goal, turns)
            thing = next(found for found in shops()[goal.shop] if found.singular == item.thing)
            other = next(found for found in shops()[goal.shop] if found is not thing)
            colour = next(c for c in (*thing.colours, *thing.kinds, "red") if c != item.quality)
            wrong = {
                "count": replace(item, count=item.count + 1),
                "thing": replace(item, thing=other.singular),
                "quality": replace(item, quality=colour if item.quality else "red white"),
            }
            return hand_over(wrong[fault])

        assert play(goal, helper)[1].outcome == "failure"


LISTS = [
    "Here are " + ", ".join(f"{number} {thing.plural}" for number in NUMBERS for thing in things().values()) + ".",
    "Here are " + " ".join(NUMBERS) + " " + " ".join(thing.plural for thing in things().values()) + ".",
    " ".join(f"Here are {number} red apples." for number in NUMBERS),
    " ".join(NUMBERS) + " red apples",
    "Here are three " + " ".join(sorted(colours())) + " apples.",
    "Here are three red apples. Here are three pears. Here are three lemons.",
    "How many? Which colour? Here are three red apples and four green apples.",
]


@pytest.mark.parametrize("reply", LISTS)
@pytest.mark.parametrize("goal", [ONE, VAGUE])
def test_listing_everything_does_not_succeed(reply, goal):
    assert customer_reply(goal, [reply]).outcome is None
    assert progress(goal, [reply]) == 0.0
    assert customer_reply(goal, [reply, reply]).outcome == "failure"


@pytest.mark.parametrize("level", LEVELS)
def test_one_reply_for_all_goals_seldom_succeeds(level):
    goals = [shopping(3, index, level) for index in range(400)]
    for turn in ("Here are three red apples.", "How many would you like? Which colour would you like?"):
        wins = sum(play(goal, lambda *_, turn=turn: turn)[1].outcome == "success" for goal in goals)
        assert wins <= 0.01 * len(goals)


@pytest.mark.parametrize(
    "reply",
    [
        "Here are three red apples.",
        "Sure! Here are 3 red apples for you.",
        "Of course, three red apples coming right up!",
        "Here you go: three red apples.",
        "There you go, 3 red apples. That will be $2.50.",
        "Three red apples it is! That's 4 euros, please.",
        "Sorry about that. Here are three red apples. Anything else?",
        "Sorry, here are three red apples!",
        "No problem! I will get you three red apples.",
        "Here are the three red apples you asked for.",
        "I have three red apples for you.",
        "I'll put three red apples in a bag for you. Have a nice day!",
        "three red apples",
    ],
)
def test_other_words_for_the_right_thing_are_understood(reply):
    assert customer_reply(ONE, [reply]).outcome == "success"


@pytest.mark.parametrize(
    "reply",
    [
        "Here are some red apples.",
        "Here are three apples.",
        "Here are three green apples.",
        "Do you want three red apples?",
        "I do not have three red apples.",
        "Unfortunately three red apples are all gone.",
        "Three red apples, please.",
        "You asked for three red apples.",
        "I like three red apples.",
        "My mother had three red apples.",
        "Anything else?",
        "",
        "!!!",
    ],
)
def test_a_wrong_or_missing_hand_over_is_a_mistake(reply):
    assert customer_reply(ONE, [reply]).outcome is None
    assert progress(ONE, [reply, "Here are three red apples."]) == 0.75


def test_one_of_a_thing_is_handed_over_with_an_article_or_a_number():
    goal = goal_of(Item(1, "red", "apple"))
    for reply in ("Here is a red apple.", "Here is your red apple!", "Here is 1 red apple.", "One red apple for you."):
        assert customer_reply(goal, [reply]).outcome == "success", reply
    assert customer_reply(goal, ["Here are two red apples."]).outcome is None


def test_kinds_are_distinguished_from_things_of_the_same_name():
    goal = goal_of(Item(2, "lemon", "cake"))
    assert customer_reply(goal, ["Here are two lemon cakes."]).outcome == "success"
    assert customer_reply(goal, ["Here are two lemons."]).outcome is None
    assert parse_reply("Here are two lemons and two cakes.").things == {"lemon", "cake"}


def test_a_thing_without_a_colour_on_the_list_may_have_any_one_colour():
    goal = goal_of(Item(2, "", "apple"))
    assert customer_reply(goal, ["Here are two green apples."]).outcome == "success"
    assert customer_reply(goal, ["Here are two green and red apples."]).outcome is None


def test_two_items_are_asked_for_one_after_the_other():
    assert customer_opening(TWO) == "Hello, I would like three red apples, please."
    first = customer_reply(TWO, ["Here are three red apples. Anything else?"])
    assert (first.text, first.outcome) == ("Yes, a pear, please.", None)
    assert customer_reply(TWO, ["Here are three red apples."]).text == "Thank you. I would also like a pear, please."
    assert progress(TWO, ["Here are three red apples."]) == 0.5
    assert customer_reply(TWO, ["Here are three red apples.", "Here is a pear."]).outcome == "success"
    assert present_item(TWO, ["Here are three red apples."]).thing == "pear"


def test_a_vague_customer_has_to_be_asked():
    assert customer_opening(VAGUE) == "Hello, I would like some apples, please."
    assert customer_reply(VAGUE, ["Here are three red apples."]).text == "Wait, you did not ask how many I would like."
    assert customer_reply(VAGUE, ["How many would you like?"]).text == "Three, please."
    assert customer_reply(VAGUE, ["Which colour would you like?"]).text == "Red ones, please."
    assert customer_reply(VAGUE, ["How many would you like, and which color?"]).text == "Three red ones, please."
    asked = ["How many would you like?", "Would you like red or green apples?"]
    assert customer_reply(VAGUE, [*asked, "Here are three red apples."]).outcome == "success"
    assert progress(VAGUE, asked) == pytest.approx(2 / 3)


def test_asking_for_a_stated_detail_is_a_mistake():
    reply = customer_reply(ONE, ["How many would you like?"])
    assert (reply.text, reply.outcome) == ("I said three red apples, please.", None)
    assert progress(VAGUE, ["How many would you like?", "How many would you like?"]) == pytest.approx(1 / 3 - 0.25)


def test_the_customer_names_the_mistake_and_leaves_after_two():
    wrong = ["Here are two red apples.", "What a lovely day!"]
    assert customer_reply(ONE, wrong[:1]).text == "No, I asked for three red apples."
    assert customer_reply(ONE, wrong[1:]).text == "Sorry, I do not understand. I would like three red apples."
    reply = customer_reply(ONE, wrong)
    assert (reply.text, reply.outcome) == ("No, thank you. Goodbye.", "failure")


def test_a_dialogue_without_a_turn_has_no_reply():
    with pytest.raises(ValueError, match="customer_opening"):
        customer_reply(ONE, [])
    assert progress(ONE, []) == 0.0


def test_turns_after_the_end_raise():
    turns = ["Here are three red apples."]
    for ask in (customer_reply, progress, optimal_reply):
        with pytest.raises(ValueError, match="over after 1 turn"):
            ask(ONE, [*turns, "Hello."] if ask is not optimal_reply else turns)


def test_goals_differ_in_shop_number_and_manner():
    goals = [shopping(3, index, 3) for index in range(600)]
    assert {goal.shop for goal in goals} == set(shops())
    assert {("count",), ("quality",), ("count", "quality")} == {goal.unsaid for goal in goals}
    assert len({customer_opening(goal) for goal in goals}) > 200
    assert all(goal.setting == f"At the {goal.shop}." for goal in goals)


def test_a_goal_goes_through_json():
    for index in range(200):
        goal = shopping(3, index, 1 + index % 3)
        assert ShoppingGoal.from_row(json.loads(json.dumps(asdict(goal)))) == goal


@pytest.mark.parametrize("goal", ["A room, please.", {}, {"items": []}, {"items": [{"name": "apple"}], "unsaid": []}])
def test_a_goal_of_another_form_raises(goal):
    with pytest.raises(ValueError, match=r'expected a goal such as \{"shop": "market", .*, got'):
        ShoppingGoal.from_row(goal)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": []}, "the goal has no items"),
        ({"items": [{"count": 3, "quality": "red", "thing": "appel"}]}, "unknown thing 'appel'; did you mean 'apple'"),
        (
            {"items": [{"count": 3, "quality": "purple", "thing": "apple"}]},
            "unknown colour or kind 'purple'. Known: black",
        ),
        ({"items": [{"count": 3, "quality": "lemon", "thing": "apple"}]}, "unknown colour or kind 'lemon'"),
        ({"items": [{"count": 0, "quality": "", "thing": "apple"}]}, "count of an item is 0; expected 1 to 20"),
        ({"items": [{"count": "3", "quality": "", "thing": "apple"}]}, "count of an item is '3'"),
        ({"items": [{"count": 3.0, "quality": "", "thing": "apple"}]}, r"count of an item is 3\.0"),
        ({"items": [{"count": 3, "quality": "", "thing": ["apple"]}]}, "expected a goal such as"),
        (
            {"items": [{"count": 3, "quality": "", "thing": "apple"}], "unsaid": ["quality"]},
            "unsaid is .*'three apples",
        ),
        ({"unsaid": ["size"]}, r"unsaid is \('size',\); expected some of \('count', 'quality'\)"),
        ({"unsaid": ["count", "count"]}, "unsaid is"),
        ({"unsaid": "count"}, "unsaid is"),
        ({"manner": 6}, "manner is 6; expected 0 to 5"),
        ({"manner": "calm"}, "manner is 'calm'"),
    ],
)
def test_a_goal_that_the_customer_cannot_pursue_raises(changes, message):
    with pytest.raises(ValueError, match=message):
        ShoppingGoal.from_row(asdict(ONE) | changes)
