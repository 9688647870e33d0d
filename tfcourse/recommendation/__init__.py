"""Recommenders: from the columns of a user and an item to a score, and to lists."""

import tfcourse

tfcourse.require_tensorflow()
