"""Words that programs write into empty cells, and what else a cell without a value can look like.

The words are those of pandas, with the errors of spreadsheets and the marks of statistics offices.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

# what programs write; compared without case and outer spaces
WRITTEN = (
    *("#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "1.#ind", "1.#qnan", "1.#inf", "-1.#inf"),
    *("-nan", "nan", "<na>", "<null>", "n/a", "null", "nat", "(null)", "(blank)"),
    *("#div/0!", "#name?", "#null!", "#num!", "#ref!", "#value!", "#spill!", "#calc!"),
)
# what people write; among words of the same shape they are labels, as NA for Namibia
LABELS = ("na", "none", "nil", "?", "-", "--", "---", ".", "..", "...", "\u2013", "\u2014", "*")
EMPTY = frozenset({"", *WRITTEN, *LABELS})
LONGEST = max(map(len, EMPTY)) + 4  # letters of such a word with spaces
CENSORED = re.compile(r"\s*[<>≤≥]=?\s*[^\d\s]*\s*[+-]?\d[\d.,' ]*.*|\s*\d[\d.,' ]*\s*\+\s*")
MOST_ODD = 0.05  # largest share of odd cells in a column of numbers or dates
ODD_WORDS = 20  # largest number of different odd words, without censored values


def is_empty(word: str) -> bool:
    """Return whether a word means an empty cell in a column of numbers or dates.

    >>> is_empty(" N/A"), is_empty("unknown")
    (True, False)
    """
    return len(word) <= LONGEST and word.strip().lower() in EMPTY


def spellings() -> list[str]:
    """Return the words for empty cells in the usual cases, with and without a space before.

    >>> "NaN" in spellings(), " n/a" in spellings()
    (True, True)
    """
    special = ("NaN", "-NaN", "NaT", "#N/A N/A")
    words = {w for e in EMPTY for w in (e, e.upper(), e.capitalize())} | set(special)
    return sorted(words | {f" {w}" for w in words} | {f"{w} " for w in words})


def few_odd(parsed: int, odd: Mapping[str, int]) -> bool:
    """Return whether the cells that are no values are few enough to be taken as empty.

    One cell of 5 or more is, and in longer columns 5 % of the cells, of at most 20 different words.
    Censored values (<5, >100) count as one word.

    Args:
        parsed: number of cells that are values.
        odd: {word: number of cells} of the others.

    >>> few_odd(100, {"unknown": 3}), few_odd(10, {"low": 3})
    (True, False)
    """
    cells = sum(odd.values())
    words = sum(not CENSORED.fullmatch(word) for word in odd)
    return words <= ODD_WORDS and cells <= max(1, MOST_ODD * (parsed + cells)) <= parsed / 4 + 1e-9


def empty_words(words: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the words that are empty cells in a column of words, and those that could be and are
    labels.

    What programs write (NULL, NaN, #N/A) is empty. What people write (NA, None, -) is a label if
    all other words have its shape: as many letters in the same case, or signs only.

    Args:
        words: the distinct words of the column.

    >>> empty_words(["NA", "NO", "SE"]), empty_words(["NA", "red", "blue"])
    ((set(), {'NA'}), ({'NA'}, set()))
    """
    doubtful = {w for w in words if is_empty(w)}
    others = [w.strip() for w in words if w not in doubtful]
    labels = {w for w in doubtful if w.strip().lower() in LABELS and _one_of(w.strip(), others)}
    return doubtful - labels, labels


def _one_of(word: str, others: Collection[str]) -> bool:
    """Return whether a word has the shape of all others."""
    if len(others) < 2:
        return False
    if not word.isalpha():
        return all(not any(c.isalnum() for c in other) for other in others)
    if not all(other.isalpha() and _case(other) == _case(word) for other in others):
        return False
    return word.lower() != "na" or all(len(other) == 2 for other in others)


def _case(word: str) -> str:
    return "upper" if word.isupper() else "lower" if word.islower() else "title"


def coded(data: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts of an array (N,) in their first order, and their codes (N,).

    >>> words, codes = coded(np.array(["b", "a", "b"]))
    >>> words, codes.tolist()
    (['b', 'a'], [0, 1, 0])
    """
    cells = data.tolist()
    table = {word: code for code, word in enumerate(dict.fromkeys(cells))}
    return list(table), np.fromiter(map(table.__getitem__, cells), np.int64, len(cells))
