"""The optimizers, on one flat parameter vector.

An optimizer is an object with two pure functions: ``init(params, shapes) -> state``, the state a NamedTuple
of tensors, and ``step(params, grad, state, learning_rate, shapes, **options) -> (params, state)``. ``shapes``
are those of the parameters in the vector, in order.
"""

from ppo_cli.optimizers.muon import muon, muon_init
from ppo_cli.optimizers.optimizer import Optimizer, Rule
from ppo_cli.optimizers.rules import adam, adam_init, adamw, rmsprop, rmsprop_init, sgd, sgd_init

OPTIMIZERS = {
    "adam": Rule(adam_init, adam),
    "adamw": Rule(adam_init, adamw),
    "sgd": Rule(sgd_init, sgd),
    "rmsprop": Rule(rmsprop_init, rmsprop),
    "muon": Rule(muon_init, muon),
}
ADAM = Optimizer("adam", OPTIMIZERS["adam"])
