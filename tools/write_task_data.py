"""Writes the data of the built-in tasks from the generator ``world``.

    python tools/write_task_data.py

Run it after every change of the generator. The files of ``textgym/tasks/data`` depend on nothing else: the same
generator writes the same bytes on every platform.
"""

from __future__ import annotations

import json
from pathlib import Path

from world.vocabulary import adjectives, spots, things

DATA = Path(__file__).parent.parent / "textgym" / "tasks" / "data"


def words() -> str:
    """Return ``words.json``: things with their plural and kinds, colours and places."""
    forms = {thing.singular: [thing.plural, *thing.kinds] for thing in things()}
    lines = ",\n".join(f"    {json.dumps(word)}: {json.dumps(forms[word])}" for word in forms)
    colours = json.dumps([word for word, adjective in adjectives().items() if adjective.is_colour])
    places = json.dumps([spot.name for spot in spots()])
    return f'{{\n  "things": {{\n{lines}\n  }},\n  "colours": {colours},\n  "places": {places}\n}}\n'


if __name__ == "__main__":
    (DATA / "words.json").write_text(words(), encoding="utf-8")
