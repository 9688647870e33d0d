"""A TensorFlow 2 SavedModel as a Keras 3 layer whose weights are the SavedModel's variables.

`tensorflow_hub.KerasLayer` is a layer of Keras 2: in a Keras 3 model it raises, or is silently
neither trained nor saved.
"""

import contextlib
import re
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import tree

from hub_models import saved_model, trust
from hub_models.audit import audit_folder
from hub_models.resolve import Resolved


@keras.saving.register_keras_serializable("tfcourse")
class HubLayer(keras.layers.Layer):
    """A SavedModel as a layer; `hub_models.load` makes it.

    Inputs and outputs are the SavedModel's: a tensor, a list or a dict. Its function runs in
    float32 also under a mixed precision policy.

    Attributes:
        handle: What was loaded.
        digest: What identifies the SavedModel, and is compared when a model is loaded again.
        resolved_object: What `tf.saved_model.load` returned.
    """

    def __init__(
        self,
        handle: str,
        *,
        trainable: bool | str = False,
        signature: str | None = None,
        arguments: dict | None = None,
        allow_unsafe: bool = False,
        digest: str | None = None,
        name: str | None = None,
        dtype: str | keras.DTypePolicy = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        found = trust.admit(handle, digest)
        if not (allow_unsafe and trust.may_be_unsafe()):
            _refuse_unsafe(found)
        trust.remember(found)
        self.handle, self.digest = found.handle, found.digest
        self.signature, self.arguments = signature, dict(arguments or {})
        self.allow_unsafe = allow_unsafe
        # An attribute of the layer: checkpoints and exports find variables and tables through it.
        self.resolved_object = saved_model.load(found.folder)
        self._function, self.endpoint = saved_model.endpoint(self.resolved_object, signature)
        self._check_arguments()
        self._trainings = saved_model.trainings(self._function)
        trained, others = saved_model.variables(self.resolved_object, self._function, self.endpoint)
        # Wrapped as trainable first: Keras sorts a variable once, by what it is then.
        self.hub_trainable = [self._wrap(v, True) for v in trained]
        self.hub_other = [self._wrap(v, False) for v in others]
        self.built = True
        # Not `self.trainable = ...`: Keras skips an assignment of the value that is there.
        HubLayer.trainable.fset(self, trainable)
        if trainable and not self.hub_trainable:
            raise ValueError(self._nothing_trains(trainable))

    @property
    def trainable(self) -> bool | str:
        """Which variables train: `True`, `False`, or a regular expression.

        The expression is searched in the names of the SavedModel's variables: those where it is
        found train, the others do not. A model that holds the layer hands its own `trainable`
        down: `True` then means all variables, whatever expression was there before.
        """
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool | str) -> None:
        # The constructor of keras.layers.Layer comes here too, before there are variables.
        variables = getattr(self, "hub_trainable", None)
        if variables is not None:
            pattern = _compile(value)
            chosen = {id(v) for v in variables if value and pattern.search(_name(v))}
            # `True` may come from a model around this layer; `load` refuses it itself.
            if isinstance(value, str) and not chosen:
                raise ValueError(self._nothing_trains(value))
            for variable in variables:
                variable.trainable = id(variable) in chosen
        self._trainable = value

    @property
    def hub_penalties(self) -> list[Callable[[], tf.Tensor]]:
        """The SavedModel's own regularisation losses, functions without arguments."""
        return list(getattr(self.resolved_object, "regularization_losses", None) or [])

    @property
    def input_spec_of_one(self) -> tf.TensorSpec | None:
        """The one tensor that a call takes; `None` where it takes several."""
        positional, named = saved_model.traces(self._function)[0].structured_input_signature
        specs = [x for x in tree.flatten((positional, named)) if isinstance(x, tf.TensorSpec)]
        return specs[0] if len(specs) == 1 else None

    def call(self, inputs, training=None):
        """Run the SavedModel; frozen layers run it in inference mode."""
        arguments = dict(self.arguments)
        # A Python bool, and one that the function was traced for; a tensor it cannot take.
        mode = arguments.pop("training", bool(training and self.trainable))
        if mode in self._trainings:
            arguments["training"] = mode
        if self.endpoint == "signature":
            outputs = self._run_signature(inputs, arguments)
        else:
            outputs = self._function(inputs, **arguments)
        if self.trainable:
            for penalty in self.hub_penalties:
                self.add_loss(penalty())
        return outputs

    def get_config(self) -> dict:
        """Return what loads the same SavedModel again; weights are saved with the model."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "handle": self.handle,
            "digest": self.digest,
            "trainable": self.trainable,
            "signature": self.signature,
            "arguments": self.arguments,
            "allow_unsafe": self.allow_unsafe,
        }

    @classmethod
    def from_config(cls, config: dict) -> "HubLayer":
        """Load the SavedModel that a saved model names, if `hub_models.trust` admits it."""
        config = dict(config)
        config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)

    def _check_arguments(self) -> None:
        names = saved_model.argument_names(self._function)
        unknown = set(self.arguments) - set(names)
        if self.arguments.get("training") is False:
            unknown -= {"training"}  # without that argument it runs in inference mode anyway
        if unknown:
            raise ValueError(f"arguments must be among {names[1:]}, got {sorted(unknown)}")

    def _run_signature(self, inputs, arguments):
        names = list(self._function.structured_input_signature[1])
        if not isinstance(inputs, dict):
            inputs = {names[0]: inputs}
        outputs = self._function(**inputs, **arguments)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _nothing_trains(self, value: bool | str) -> str:
        if self.endpoint == "signature":
            return f"{self.handle!r} runs a signature, which cannot be trained: use trainable=False"
        if not self.hub_trainable:
            return f"{self.handle!r} has no trainable variables: use trainable=False"
        names = [_name(v) for v in self.hub_trainable]
        some = ", ".join(names[:3])
        return f"trainable={value!r} matches none of the {len(names)} variables ({some}, ...)"

    def _wrap(self, variable: tf.Variable, trainable: bool) -> keras.Variable:
        """Return a Keras variable over this very `tf.Variable`."""
        *scopes, name = variable.name.split(":")[0].split("/")
        with contextlib.ExitStack() as stack:
            for scope in (self.name, *scopes):
                stack.enter_context(keras.name_scope(scope))
            wrapped = keras.Variable(
                variable, dtype=variable.dtype, trainable=trainable, autocast=False, name=name
            )
        if wrapped.value is not variable:
            raise RuntimeError(f"Keras {keras.__version__} copied {variable.name}: it must wrap it")
        return wrapped


def _name(variable: keras.Variable) -> str:
    return variable.path.split("/", 1)[1]


def _compile(trainable: bool | str) -> re.Pattern[str]:
    try:
        return re.compile(trainable if isinstance(trainable, str) else "")
    except re.error as error:
        raise ValueError(
            f"trainable must be a bool or a regular expression, got {trainable!r} ({error})"
        ) from None


def _refuse_unsafe(found: Resolved) -> None:
    if refused := audit_folder(found.folder).refused:
        raise ValueError(
            f"{found.handle!r} may do more than compute: {'; '.join(refused)}. A SavedModel is a "
            "program: pass allow_unsafe=True only if you trust its author like your own code"
        )
