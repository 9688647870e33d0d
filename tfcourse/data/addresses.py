"""State of the Union: what presidents of the United States told Congress, 1790 to 2021.

Public domain; collected by the authors of stdlib, https://github.com/stdlib-js/datasets-sotu.
A long text to learn words from: 1.8 million.
"""

import json
import re
import tarfile

from tfcourse.data.sources import SOURCES, fetch

_FILE = re.compile(r"package/data/(\d{4}_\w+)\.json")


def load_addresses() -> list[str]:
    """Load the addresses.

    Returns:
        The addresses, by year.

    Raises:
        OSError: If they can't be fetched; the message tells what to do.
    """
    (member,) = SOURCES["addresses"].members
    found = {}
    with tarfile.open(fetch("addresses") / member) as archive:
        for file in archive:
            if name := _FILE.fullmatch(file.name):
                text = json.load(archive.extractfile(file))["text"]
                found[name[1]] = " ".join(text.split())
    return [found[name] for name in sorted(found)]
