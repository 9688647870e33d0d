"""Numbers and dates in digits, in English and in Chinese words: generated pairs to translate.

    4072          four thousand and seventy-two              si qian ling qi shi er
    1984-03-09    the ninth of march nineteen eighty-four    yi jiu ba si nian san yue jiu ri

with the Chinese in characters. English counts by thousands and Chinese by ten thousands, and their
dates run in opposite directions: a translator has to rearrange, not only to replace.
"""

import datetime

import numpy as np

LANGUAGES = ("digits", "english", "chinese")
LARGEST = 999_999
FIRST_YEAR, LAST_YEAR = 1900, 2099
DATES = 0.3  # of all pairs

_words = str.split
ONES = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = _words(
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
MONTHS = _words(
    "january february march april may june july august september october november december"
)
# Zero to nine; ten, hundred and thousand; ten thousand; the zero of years; year, month, day.
DIGITS = "\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d"
UNITS = ("", "\u5341", "\u767e", "\u5343")
MYRIAD, CIRCLE = "\u4e07", "\u3007"
YEAR, MONTH, DAY = "\u5e74\u6708\u65e5"


def english_number(number: int) -> str:
    """Write a number in English words, as the British do: "four thousand and seventy-two".

    Raises:
        ValueError: If it is not from 0 to 999,999.
    """
    _check(number)
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_thousand(rest)
    words = f"{_below_thousand(thousands)} thousand"
    if not rest:
        return words
    return f"{words}{' and' if rest < 100 else ''} {_below_thousand(rest)}"


def chinese_number(number: int) -> str:
    """Write a number in Chinese characters.

    A gap of zeros is said once, but for one at the end; ten to nineteen begin with ten.

    Raises:
        ValueError: If it is not from 0 to 999,999.
    """
    _check(number)
    if not number:
        return DIGITS[0]
    myriads, rest = divmod(number, 10_000)
    text = _below_myriad(rest)
    if myriads:
        gap = DIGITS[0] if 0 < rest < 1000 else ""
        text = f"{_below_myriad(myriads)}{MYRIAD}{gap}{text}"
    # One ten is ten, but only in front.
    return text.removeprefix(DIGITS[1]) if text.startswith(DIGITS[1] + UNITS[1]) else text


def english_date(date: datetime.date) -> str:
    """Write a date of 1900 to 2099 in English words: "the ninth of march nineteen eighty-four".

    Raises:
        ValueError: If it is of another year.
    """
    if not FIRST_YEAR <= date.year <= LAST_YEAR:
        raise ValueError(f"date must be of {FIRST_YEAR} to {LAST_YEAR}, got {date}")
    century, rest = divmod(date.year, 100)
    if 2000 <= date.year < 2010:
        year = english_number(date.year)
    elif rest < 10:
        year = f"{ONES[century]} {f'oh {ONES[rest]}' if rest else 'hundred'}"
    else:
        year = f"{_below_thousand(century)} {_below_thousand(rest)}"
    tens, ones = divmod(date.day, 10)
    day = ORDINALS[date.day] if date.day <= 20 else f"{TENS[tens]}-{ORDINALS[ones]}"
    day = "thirtieth" if date.day == 30 else day
    return f"the {day} of {MONTHS[date.month - 1]} {year}"


def chinese_date(date: datetime.date) -> str:
    """Write a date in Chinese characters: year by digits, then month and day as numbers."""
    year = "".join(CIRCLE if digit == "0" else DIGITS[int(digit)] for digit in str(date.year))
    return f"{year}{YEAR}{chinese_number(date.month)}{MONTH}{chinese_number(date.day)}{DAY}"


def number_pairs(
    count: int, source: str = "english", target: str = "chinese", seed: int = 0
) -> tuple[list[str], list[str]]:
    """Generate numbers and dates that are all different, in two languages.

    Seven of ten are numbers, which have from one to six digits equally often as far as there are
    so many; the others are dates. In digits all figures stand apart, to be a token each.

    Args:
        count: How many.
        source: "digits", "english" or "chinese".
        target: Another of them.
        seed: Of what is drawn, and of the order.

    Returns:
        The texts in the source language, and those in the target language.

    Raises:
        ValueError: If there is no such language, or there are not so many numbers and dates.
    """
    wrong = [name for name in (source, target) if name not in LANGUAGES]
    if wrong or source == target:
        raise ValueError(
            f"source and target must be two of {', '.join(LANGUAGES)}, got {source!r}, {target!r}"
        )
    rng = np.random.default_rng(seed)
    first = datetime.date(FIRST_YEAR, 1, 1).toordinal()
    days = datetime.date(LAST_YEAR, 12, 31).toordinal() - first + 1
    num_dates = round(DATES * count)
    if not 1 <= count <= days / DATES:
        raise ValueError(f"count must be from 1 to {int(days / DATES)}, got {count}")
    numbers = set()
    while len(numbers) < count - num_dates:
        numbers.add(int(rng.integers(10 ** rng.integers(1, 7))))
    drawn = rng.choice(days, num_dates, replace=False)
    dates = [datetime.date.fromordinal(first + int(day)) for day in drawn]
    things = [*sorted(numbers), *dates]
    things = [things[i] for i in rng.permutation(count)]
    return tuple([_say(thing, language) for thing in things] for language in (source, target))


def _say(thing: int | datetime.date, language: str) -> str:
    is_date = isinstance(thing, datetime.date)
    if language == "digits":
        return " ".join(str(thing))
    if language == "english":
        return english_date(thing) if is_date else english_number(thing)
    return chinese_date(thing) if is_date else chinese_number(thing)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [f"{ONES[hundreds]} hundred"] * bool(hundreds)
    if rest < 20:
        words += [ONES[rest]] * bool(rest or not hundreds)
    else:
        tens, ones = divmod(rest, 10)
        words.append(f"{TENS[tens]}-{ONES[ones]}" if ones else TENS[tens])
    return " and ".join(words)


def _below_myriad(number: int) -> str:
    """Write 1 to 9999 with every digit before its unit; nothing for 0."""
    text, gap = "", ""
    for place in (3, 2, 1, 0):
        digit = number // 10**place % 10
        if digit:
            text += gap + DIGITS[digit] + UNITS[place]
        gap = DIGITS[0] if text and not digit else ""
    return text


def _check(number: int) -> None:
    if not 0 <= number <= LARGEST:
        raise ValueError(f"number must be from 0 to {LARGEST}, got {number}")
