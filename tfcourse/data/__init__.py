"""Where data sets come from and how they become arrays.

Only `in_memory`, which makes batches of them, imports TensorFlow.
"""
