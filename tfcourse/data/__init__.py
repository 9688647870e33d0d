"""Where data sets come from and how they become arrays.

Only `in_memory`, which makes batches of them, and `streams`, which reads files in training,
import TensorFlow.
"""
