"""The inner loop: many steps in one call of a graph, over arrays or a `tf.data` pipeline.

Calling a graph costs Python about as much time as a small model's step takes; a loop inside the
graph pays that once for many steps. Three graphs lie in one another: the step of one replica, the
step of all replicas (`strategy.run`), and the loop.
"""

import re
from collections.abc import Callable

import keras
import tensorflow as tf

from tfcourse.data.in_memory import InMemory
from tfcourse.training import replicas, whole_batch
from tfcourse.training.side_by_side import SideBySide

Step = Callable[[keras.Model, tuple], dict[str, tf.Tensor]]


def inner_loop(model, data, step: Step, *, class_weight=None, jit_compile=False, combine=None):
    """Return the loop over `data` that fits its kind.

    Args:
        model: A built model.
        data: `InMemory`, or a `tf.data.Dataset` of batches.
        step: What one replica does with its rows of a batch.
        class_weight: Weight of each class of integer or one-hot targets, or `None`.
        jit_compile: Whether the step is compiled by XLA.
        combine: What makes one tensor of the replicas' outputs; by default their mean.
    """
    tpu = isinstance(model.distribute_strategy, tf.distribute.TPUStrategy)
    if isinstance(data, InMemory) and not tpu:
        loop = ArrayLoop(model, data)
    else:
        loop = StreamLoop(model, data.dataset() if isinstance(data, InMemory) else data)
    loop.step, loop.class_weight, loop.jit_compile = step, class_weight, jit_compile
    loop.combine = combine or (lambda value: loop.strategy.reduce("MEAN", value, axis=None))
    return loop


class _Loop:
    """What both loops share: the graph of one step on all replicas.

    Attributes:
        labels: What follows the labels of a stream, or `None`.
    """

    labels = None

    def __init__(self, model, spec):
        self.model, self.strategy = model, model.distribute_strategy
        self.replicas = self.strategy.num_replicas_in_sync
        self.many_workers = isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.element_spec = spec
        self.position = 0
        self._graph = None

    def graph(self):
        """Return the graph of one step, traced when it is first asked for."""
        if self._graph is None:
            # One replica's graph is compiled whole; of several, the model's part (`forward`).
            compiled = self.jit_compile and self.replicas == 1
            function = tf.function(self._on_all, autograph=False, jit_compile=compiled or None)
            # Traced once, for any number of rows. Without AutoGraph an error in the step is its
            # own message, not a listing.
            self._graph = function.get_concrete_function(self.element_spec)
        return self._graph

    def one(self, batch):
        """Run one step on all replicas."""
        return self._on_all(batch) if self.model.run_eagerly else self.graph()(batch)

    def zeros(self):
        """Return what the step returns, as zeros: where the loop's logs begin."""
        return keras.tree.map_structure(
            lambda x: tf.zeros(x.shape, x.dtype), self.graph().structured_outputs
        )

    def _on_all(self, batch):
        def on_replica(batch):
            if self.replicas > 1:
                whole_batch.standing_in(self.rows(batch))
            return self.step(self.model, self._weighted(self.fetch(batch)))

        with whole_batch.as_one_device(self.model, self.replicas, self.jit_compile):
            outputs = self.strategy.run(on_replica, args=(batch,))
        return keras.tree.map_structure(self.combine, outputs)

    def _weighted(self, batch):
        if self.class_weight is None:
            return batch
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        classes = tf.argmax(y, -1) if y.shape.rank == 2 and y.shape[-1] > 1 else tf.reshape(y, [-1])
        table = [self.class_weight.get(i, 1.0) for i in range(max(self.class_weight) + 1)]
        inside = tf.minimum(tf.cast(classes, tf.int32), len(table))
        # A class that is not named counts once, as in Model.fit.
        own = tf.gather(tf.constant([*table, 1.0], tf.float32), inside)
        return x, y, own if weight is None else own * tf.cast(weight, tf.float32)


def _own_function(method: Callable, **settings):
    """Return the graph of a method, as a function of its own.

    TensorFlow warns of a method that is traced for one object after another.
    """

    def function(*arguments):
        return method(*arguments)

    graph = tf.function(function, autograph=False, **settings)
    # It counts traces by the address of a function, which the next training may get again.
    graph._omit_frequent_tracing_warning = True
    return graph


def _first_device(strategy: tf.distribute.Strategy) -> str | None:
    single = isinstance(strategy, tf.distribute.OneDeviceStrategy)
    return strategy.extended.worker_devices[0] if single else None


class ArrayLoop(_Loop):
    """The loop over `InMemory`: an index says which rows of the arrays are the batch."""

    def __init__(self, model, data: InMemory):
        whole = data.steps * data.batch_size == len(data)
        index = tf.TensorSpec([data.batch_size if whole else None], data.order(0).dtype)
        super().__init__(model, index)
        self.data, self.steps, self.iterator = data, data.steps, None
        with tf.device(_first_device(self.strategy)):
            self.arrays = SideBySide(data.arrays)
        self._pass, self._order = None, None
        self._many = _own_function(self._loop)
        self._compiled = _own_function(self._static_loop, jit_compile=True)

    def fetch(self, index):
        """Return this replica's rows."""
        return self.rows(replicas.deal(index), None)

    def rows(self, index, most: int | None = 1):
        """Return the rows of an index, by default the first."""
        return self.arrays.rows(index[:most])

    def begin(self, position: int) -> None:
        """Go to the step of this number, counted from the first epoch's first."""
        self.position = position

    def run(self, count: int):
        """Run up to `count` steps, within a pass over the data; return how many, and their logs."""
        number, first = divmod(self.position, self.steps)
        if number != self._pass:
            self._pass, self._order = number, tf.constant(self.data.order(number))
        count = min(count, self.steps - first)
        full = len(self.data) // self.data.batch_size
        if first < full:  # the short last batch by itself: collectives keep one shape in a loop
            count = min(count, full - first)
        if self.model.run_eagerly:
            logs = [self.one(self._rows(self._order, first + i)) for i in range(count)][-1]
        else:
            # XLA takes a whole loop over batches of one size, from one replica.
            compiled = self.jit_compile and self.replicas == 1 and first < full
            many = self._compiled if compiled else self._many
            logs = many(self._order, tf.constant(first), tf.constant(count))
        self.position += count
        return count, logs

    def _rows(self, order, step):
        first = step * self.data.batch_size
        rows = order[first : first + self.data.batch_size]
        return tf.ensure_shape(rows, self.element_spec.shape)

    def _loop(self, order, first, count):
        return self._repeat(lambda i: self.one(self._rows(order, first + i)), count)

    def _static_loop(self, order, first, count):
        def step(i):
            # A slice with a moving start would make XLA compile for each of its values.
            index = (first + i) * self.data.batch_size + tf.range(self.data.batch_size)
            return self._on_all(tf.gather(order, index))

        return self._repeat(step, count)

    def _repeat(self, step, count):
        def body(i, logs):
            return i + 1, step(i)

        start = (tf.constant(0), self.zeros())
        return tf.while_loop(lambda i, logs: i < count, body, start, parallel_iterations=1)[1]


class StreamLoop(_Loop):
    """The loop over a `tf.data.Dataset`: the iterator is read inside the graph."""

    def __init__(self, model, data: tf.data.Dataset):
        super().__init__(model, data.element_spec)
        options = tf.data.Options()
        if data.options().autotune.enabled is None:
            # Its thread sleeps up to a minute, and the end of an iterator may wait for it.
            options.autotune.enabled = False
        data = data.with_options(options)
        self.data, self.iterator, self.last_start = data, None, None
        self.steps = int(data.cardinality()) if data.cardinality() >= 0 else None
        self.on_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
        if self.on_tpu:
            self.data = self.strategy.experimental_distribute_dataset(data)
            self.element_spec = self.data.element_spec
        self._many = _own_function(self._loop)

    def rows(self, batch):
        """Return the first row of a batch."""
        return keras.tree.map_structure(lambda x: x[:1], batch)

    def fetch(self, batch):
        """Return this replica's rows."""
        # TensorFlow's own way, an iterator for each device, waits when it ends for a thread that
        # sleeps 20 s, 40 s, ... after long epochs.
        return batch if self.on_tpu else replicas.deal(batch)

    def begin(self, position: int) -> None:
        """Begin a pass over the data."""
        if self.last_start:  # after a resume: shuffling goes on from the pass that was resumed
            tf.train.Checkpoint(iterator=iter(self.data)).read(self.last_start).assert_consumed()
            self.last_start = None
        self.position, self.iterator = position, iter(self.data)

    def run(self, count: int):
        """Run up to `count` steps, as many as the data has; return how many, and their logs."""
        shapes = [spec.shape for spec in keras.tree.flatten(self.element_spec)]
        if self.many_workers and not all(shape.is_fully_defined() for shape in shapes):
            count = 1  # collectives keep one shape in a loop, and the last batch may be short
        if self.model.run_eagerly:
            batches = zip(range(count), self.iterator, strict=False)
            logs = [self._followed(batch) for _, batch in batches]
            done, logs = len(logs), logs[-1] if logs else None
        else:
            try:
                done, logs = self._many(self.iterator, tf.constant(count))
            except tf.errors.InvalidArgumentError as error:
                # What a generator raised, such as a bad row, comes wrapped in a listing.
                if found := re.search(r"^ValueError: (.+)$", error.message, re.MULTILINE):
                    raise ValueError(found[1]) from error
                raise
        self.position += int(done)
        return int(done), logs

    def _followed(self, batch):
        if self.labels:
            self.labels.add(batch)
        return self.one(batch)

    def _loop(self, iterator, count):
        if self.on_tpu:
            logs = self.zeros()
            for _ in tf.range(count):
                logs = self.one(next(iterator))
            return count, logs

        def nothing():
            return tf.experimental.Optional.empty(self.element_spec)

        def body(i, batch, logs):
            logs, i = self._followed(batch.get_value()), i + 1
            return i, tf.cond(i < count, iterator.get_next_as_optional, nothing), logs

        start = (tf.constant(0), iterator.get_next_as_optional(), self.zeros())
        end = tf.while_loop(
            lambda i, batch, logs: batch.has_value(), body, start, parallel_iterations=1
        )
        return end[0], end[2]
