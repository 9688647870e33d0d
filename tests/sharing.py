"""What tests of recipes and of real data share."""

import pytest
from PIL import Image


def or_skip(load, *arguments):
    """Load real data; skip the test where no package registry can be reached."""
    try:
        return load(*arguments)
    except OSError as error:
        pytest.skip(f"no package registry can be reached: {error}")


def check_pictures(folder, *names):
    """Hold that pictures are there and larger than a thumbnail."""
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
