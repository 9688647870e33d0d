"""House prices (Anglin & Gencay, 1996), http://qed.econ.queensu.ca/jae/1996-v11.6/anglin-gencay/.

546 sales in Windsor, Canada, in the summer of 1987: what a house cost, and eleven facts about it.
"""

import csv
import tempfile
from pathlib import Path

import numpy as np

from tfcourse.data.archives import extract_members
from tfcourse.data.sources import SOURCES, fetch

# Columns of the table, in its order: numbers, and what a house has (1) or not (0).
FEATURES = (
    "lotsize",  # of the property, in square feet
    "bedrooms",
    "bathrms",  # bathrooms
    "stories",  # without the basement
    "driveway",
    "recroom",  # recreational room
    "fullbase",  # finished basement
    "gashw",  # hot water by gas
    "airco",  # air conditioning
    "garagepl",  # garage places
    "prefarea",  # in the preferred neighbourhood
)
TABLE = "rdata/csv/Ecdat/Housing.csv"  # in an archive inside the package
WORDS = {"no": 0.0, "yes": 1.0}


def load_housing() -> tuple[np.ndarray, np.ndarray]:
    """Load the 546 houses, in the order of the table.

    Returns:
        The features `(546, 11)`, named by `FEATURES`, and the prices `(546,)` in Canadian dollars,
        both of float64.

    Raises:
        OSError: If the table can't be fetched; the message tells what to do.
    """
    (member,) = SOURCES["housing"].members
    with tempfile.TemporaryDirectory() as folder:
        extract_members(fetch("housing") / member, {TABLE}, folder)
        with open(Path(folder) / TABLE, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    columns = ("price", *FEATURES)
    table = np.array([[_number(row[column]) for column in columns] for row in rows])
    return table[:, 1:], table[:, 0]


def _number(text: str) -> float:
    return WORDS[text] if text in WORDS else float(text)
