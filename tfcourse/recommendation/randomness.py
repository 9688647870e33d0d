"""Random bits that cost nothing under XLA, and dropout (Srivastava et al., 2014) from them.

https://jmlr.org/papers/v15/srivastava14a.html. Networks as small as a recommender's are trained
several times faster when XLA compiles the steps, but on a CPU it makes TensorFlow's random numbers
so slowly that one dropout costs more than all the rest. Here a number is what becomes of its place
and of the seed when their bits are mixed, in a dozen integer operations that XLA joins with others.
"""

import keras
import tensorflow as tf
from keras import layers

# Shifts and factors that spread a change of any bit over all 32 of them (lowbias32, Wellons, 2018).
SHIFTS, FACTORS = (16, 15, 16), (0x7FEB352D, 0x846CA68B)


def random_bits(shape, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Return evenly spread integers, uint32, others at every call and on every replica.

    They do for dropout and for drawing ids, but are no match for those who know the seed.

    Args:
        shape: Of what is returned, integers or a tensor of them.
        generator: Where the seed comes from, a part of a layer.
    """
    seed = tf.cast(generator.next(), tf.uint32)
    place = tf.cast(tf.reshape(tf.range(tf.reduce_prod(shape)), shape), tf.uint32)
    return _mix(_mix(tf.bitwise.bitwise_xor(place, seed[0])) + seed[1])


@keras.saving.register_keras_serializable("tfcourse")
class Dropout(layers.Dropout):
    """Keras' dropout with random bits of its own: the same shares, fast under XLA.

    In training each number is 0 with the probability `rate`, else divided by 1 - rate.

    Args: those of `keras.layers.Dropout`, but for the shape of the noise.
    """

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        bits = random_bits(tf.shape(inputs), self.seed_generator)
        kept = tf.cast(bits >= tf.constant(int(self.rate * 2**32), tf.uint32), inputs.dtype)
        return inputs * kept / (1 - self.rate)


def _mix(bits: tf.Tensor) -> tf.Tensor:
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        shifted = tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        bits = tf.bitwise.bitwise_xor(bits, shifted) * tf.constant(factor, tf.uint32)
    return bits
