"""Text and tokens of a model in a form that is safe to print and in which nothing is invisible."""

import unicodedata

__all__ = ["display_text", "display_token", "isolated"]

NEWLINE, TAB, SPACE, EMPTY = "⏎", "⇥", "␣", "∅"

INVISIBLE = frozenset(
    (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
        *range(0xFE00, 0xFE0E),  # variation selectors, but for those of emoji, U+FE0E and U+FE0F
        *range(0xE0100, 0xE01F0),
    )
)
"""Code points that Python calls printable and that have no ink."""


class _Shown(dict[int, str]):
    """Table of ``str.translate``, which fills itself: code point -> what is shown of it."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code < 0x20 or code == 0x7F:
            shown = chr(0x2400 + code) if code < 0x20 else "\u2421"
        elif (character.isprintable() or unicodedata.category(character) == "Zs") and code not in INVISIBLE:
            shown = character
        else:
            shown = f"<U+{code:04X}>"
        self[code] = shown
        return shown


_LINES = _Shown({0x09: "\t", 0x0A: "\n"})
_ONE_LINE = _Shown({0x09: TAB, 0x0A: NEWLINE})
_TOKEN = _Shown(
    {0x09: TAB, 0x0A: NEWLINE}
    | {code: f"<U+{code:04X}>" for code in (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)}
)


def display_text(text: str, *, one_line: bool = False) -> str:
    r"""Return a text as it is shown to people: printable text unchanged, all else made visible.

    Control characters become their pictures (ESC is ␛), or ``<U+0085>`` where there is none; so do bidirectional
    controls, other characters without ink, unassigned and private ones, line and paragraph separators, and lone
    surrogates. The result can be encoded as UTF-8 and cannot move the cursor, colour or reorder what is around it.

    Args:
        text: Any string.
        one_line: Show newlines as ⏎ and tabs as ⇥; by default, both are kept.

    >>> display_text("Hi\x1b[31m \u202eolleh\n", one_line=True)
    'Hi␛[31m <U+202E>olleh⏎'
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_ONE_LINE if one_line else _LINES)


def display_token(text: str) -> str:
    r"""Return a token as it is shown to people, on one line and never empty.

    As ``display_text``; in addition spaces at either end are shown as ␣, spaces other than U+0020 as ``<U+00A0>``, and
    the empty text as ∅.

    >>> [display_token(text) for text in (" happy", "  ", ".\n", "", "\ud83d")]
    ['␣happy', '␣␣', '.⏎', '∅', '<U+D83D>']
    """
    if not text:
        return EMPTY
    inner = text.strip(" ")
    start = len(text) - len(text.lstrip(" "))
    end = len(text) - start - len(inner)
    return SPACE * start + inner.translate(_TOKEN) + SPACE * end


def isolated(shown: str) -> str:
    """Return a displayed text for a terminal: with right-to-left letters, isolated from the direction of the rest.

    U+2068 and U+2069 are put around it; call it last, since ``display_text`` shows them.

    >>> isolated("abc")
    'abc'
    """
    is_rtl = not shown.isascii() and any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in shown)
    return f"\u2068{shown}\u2069" if is_rtl else shown
