"""Names of months and days of the week, as dates contain them."""

from __future__ import annotations

from collections.abc import Collection

MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
    "diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro "
    "dezembro",
}
SHORT = {
    "en": "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
    "de": "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez",
    "fr": "janv févr mars avr mai juin juil août sept oct nov déc",
    "es": "ene feb mar abr may jun jul ago sep oct nov dic",
    "it": "gen feb mar apr mag giu lug ago set ott nov dic",
    "nl": "jan feb mrt apr mei jun jul aug sep okt nov dec",
    "pt": "jan fev mar abr mai jun jul ago set out nov dez",
}
ALSO = {"en": {"sept": 9}, "de": {"jän": 1, "jänner": 1, "mrz": 3}}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def months(language: str) -> dict[str, int]:
    """Return the numbers of the months by their names in lower case, short ones included.

    >>> months("de")["dez"]
    12
    """
    numbers: dict[str, int] = {}
    for names in (MONTHS[language], SHORT[language]):
        numbers |= {name.lower(): i + 1 for i, name in enumerate(names.split())}
    return numbers | ALSO.get(language, {})


def language_of(names: Collection[str]) -> str:
    """Return the language that has all names of months, in lower case; "" if none has.

    >>> language_of(["jan", "oct"]), language_of(["jan", "okt"]), language_of(["street"])
    ('en', 'de', '')
    """
    return next((code for code in MONTHS if set(names) <= months(code).keys()), "")


def month_names(language: str, *, short: bool, case: str) -> list[str]:
    """Return the names of the months in a case: upper, lower or title.

    >>> month_names("en", short=True, case="upper")[:2]
    ['JAN', 'FEB']
    """
    names = (SHORT if short else MONTHS)[language].split()
    change = {"upper": str.upper, "lower": str.lower, "title": str.capitalize}[case]
    return [change(name) for name in names]


def case_of(names: Collection[str]) -> str:
    """Return the case of names: upper, lower or title.

    >>> case_of(["Jan", "Feb"])
    'title'
    """
    return (
        "upper"
        if all(map(str.isupper, names))
        else ("lower" if all(map(str.islower, names)) else "title")
    )
