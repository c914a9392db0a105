"""How gradients become updates: small pure transforms that chain, and the optimizers that they make.

All trainable parameters lie in one flat vector and their gradients in another, and every rule here is
elementwise, so a transform neither knows nor cares where a layer begins, and a worker may update
a slice of its own. What is not elementwise, the norm of the whole gradient, comes in with the `Step`.

The definitions, defaults and first steps are PyTorch's, so that a side-by-side run agrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.terms import Ref, Term, Terms
from cnnbp_cli.core.types import Array, at_least, require, show, within

# Blocks keep a transform's temporaries in the cache, yet spread the cost of a NumPy call over many
# elements. Adam on 1.2 million float32 parameters, one core with 2 MiB of L2 cache: 9.2 ms in blocks of
# 2,048, 3.4 of 16,384, 3.3 of 32,768, 3.5 of 65,536, and 6.8 in one piece.
UPDATE_BLOCK = 32_768
"""Elements that an `Updater` transforms at a time."""


@dataclass(frozen=True, slots=True)
class Step:
    """What every transform may read about the update that is being made.

    Attributes
    ----------
    number : int
        The count of updates, this one included: 1 for the first.
    learning_rate : float
        The rate that the schedule gives for this update.
    grad_norm : float
        The L2 norm of the whole gradient, before any transform.
    """

    number: int
    learning_rate: float
    grad_norm: float

    def __post_init__(self) -> None:
        # Python's own numbers take the dtype of the array that they meet; NumPy's would promote float32.
        for name, kind in (("number", int), ("learning_rate", float), ("grad_norm", float)):
            object.__setattr__(self, name, kind(getattr(self, name)))


Rule = Callable[[Array, Array, Mapping[str, Array], Step], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True, slots=True)
class Combination:
    """What becomes of one element's gradient, as a sum: `formula`, its terms, and the numbers in the formula.

    Attributes
    ----------
    coefficients : mapping of str to float
        Of ``"gradient"``, of the parameter's ``"value"``, and of state vectors by name.
    """

    formula: str = "{gradient}"
    coefficients: Mapping[str, float] = field(default_factory=lambda: {"gradient": 1.0})
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])

    def times(self, factor: float, formula: str, **numbers: float) -> Combination:
        """Return it multiplied; `formula` has a place for the one so far, ``η · {}``."""
        scaled = {name: factor * coefficient for name, coefficient in self.coefficients.items()}
        return Combination(formula.replace("{}", self.formula), scaled, {**self.numbers, **numbers})

    def plus(self, coefficient: float, name: str, formula: str) -> Combination:
        """Return it with one more multiple of a number."""
        own = self.coefficients.get(name, 0.0)
        more = {**self.coefficients, name: own + coefficient}
        return Combination(formula.replace("{}", self.formula), more, self.numbers)


Tell = Callable[[Combination, Mapping[str, Array], Step], Combination]
"""What a rule makes of a `Combination`, given the state after it, of one element, and the step."""


@dataclass(frozen=True, slots=True)
class Transform:
    """One link of an optimizer: `transform(grad, param, state, step)` is the new gradient and the new state.

    It is pure, and elementwise: no argument is written, and element `i` of the results depends on
    element `i` of the arguments.

    Attributes
    ----------
    rule : callable
        The formula.
    tell : callable
        The formula as a sum over numbers, for `update_terms`.
    slots : mapping of str to float
        The state vectors that the rule reads and returns: their names and initial values.
    """

    rule: Rule
    tell: Tell
    slots: Mapping[str, float] = field(default_factory=dict[str, float])

    def __call__(
        self, grad: Array, param: Array, state: Mapping[str, Array], step: Step
    ) -> tuple[Array, dict[str, Array]]:
        return self.rule(grad, param, state, step)


def chain(*transforms: Transform) -> Transform:
    """Return the transform that applies `transforms` from left to right; its state is all of theirs.

    Raises
    ------
    ValueError
        When two of them have a state vector of the same name.
    """
    slots: dict[str, float] = {}
    for transform in transforms:
        for name in transform.slots.keys() & slots.keys():
            raise ValueError(f"two transforms of the chain have a state vector {name!r}")
        slots.update(transform.slots)

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        new_state: dict[str, Array] = {}
        for transform in transforms:
            grad, changed = transform(grad, param, state, step)
            new_state.update(changed)
        return grad, new_state

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        for transform in transforms:
            so_far = transform.tell(so_far, after, step)
        return so_far

    return Transform(rule, tell, slots)


def update_terms(transform: Transform, parameter: Ref, numbers: Mapping[str, float], step: Step) -> Terms:
    """Explain the change that an update makes to one element of a parameter.

    Parameters
    ----------
    parameter : Ref
        The element.
    numbers : mapping of str to float
        Its ``"value"``, its ``"gradient"`` and its elements of the state vectors, before the update.
    """
    one = {name: np.array([number]) for name, number in numbers.items()}
    decrease, after = transform(one["gradient"], one["value"], one, step)
    so_far = transform.tell(Combination(), after, step)
    return Terms(
        f"{{change}} = −{so_far.formula}",
        tuple(Term(-c, (parameter._replace(of=name),)) for name, c in so_far.coefficients.items()),
        tuple(parameter._replace(of=name) for name in transform.slots if name not in so_far.coefficients),
        {**numbers, **so_far.numbers, "change": -decrease.item()},
    )


def clip_by_global_norm(max_norm: float) -> Transform:
    """Scale the gradient down to the norm `max_norm` where the whole gradient's norm is above it.

    ``g · min(1, max_norm / (norm + 1e-6))``, with the norm of `Step.grad_norm`.

    References
    ----------
    Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural networks",
    arXiv:1211.5063, algorithm 1; the 1e-6 is that of PyTorch's `clip_grad_norm_`.
    """

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        coefficient = min(1.0, max_norm / (step.grad_norm + 1e-6))
        return coefficient * grad, {}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        coefficient = min(1.0, max_norm / (step.grad_norm + 1e-6))
        return so_far.times(coefficient, "{clip} · {}", clip=coefficient) if coefficient < 1 else so_far

    return Transform(rule, tell)


def add_weight_decay(rate: float) -> Transform:
    """Add the gradient of ``rate/2 · |p|²``: ``g + rate · p``.

    Before the other links it is L2 regularization; between them and the learning rate it is weight
    decay decoupled from the gradient's scaling.

    References
    ----------
    Loshchilov and Hutter (2019), "Decoupled weight decay regularization", arXiv:1711.05101.
    """

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        decayed = rate * param
        decayed += grad
        return decayed, {}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        return so_far.plus(rate, "value", f"({{}} + {rate:g} · {{value}})")

    return Transform(rule, tell)


def momentum(decay: float, *, nesterov: bool = False) -> Transform:
    """Replace the gradient by a decaying sum of all gradients so far: ``b ← decay · b + g``.

    Nesterov's form looks one step ahead: it returns ``g + decay · b`` instead of ``b``.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and momentum in
    deep learning", ICML; in PyTorch's form, where the learning rate multiplies the whole sum.
    """

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        buffer = decay * state["momentum"]
        buffer += grad
        return grad + decay * buffer if nesterov else buffer, {"momentum": buffer}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        if not nesterov:
            return so_far.plus(decay, "momentum", f"({decay:g} · {{momentum}} + {{}})")
        ahead = so_far.times(1 + decay, f"{1 + decay:g} · {{}}")
        return ahead.plus(decay * decay, "momentum", f"({decay:g}² · {{momentum}} + {{}})")

    return Transform(rule, tell, {"momentum": 0.0})


def scale_by_adam(betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> Transform:
    """Divide the gradient's running mean by the root of its running mean square, both freed of bias.

    ``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``, and the result is
    ``m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)``.

    References
    ----------
    Kingma and Ba (2015), "Adam: a method for stochastic optimization", arXiv:1412.6980, algorithm 1.
    """
    beta1, beta2 = betas

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        mean = _running(beta1, state["mean"], grad)
        square = _running(beta2, state["square"], grad * grad)
        bias1, bias2 = 1 - beta1**step.number, 1 - beta2**step.number
        # The bias of the mean is divided out in the denominator: as scalars, not once more per element.
        root = np.sqrt(square)
        root *= bias1 / math.sqrt(bias2)
        root += bias1 * epsilon
        return mean / root, {"mean": mean, "square": square}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        bias1, bias2 = 1 - beta1**step.number, 1 - beta2**step.number
        mean = so_far.times(1 - beta1, f"{1 - beta1:g} · {{}}").plus(beta1, "mean", f"({beta1:g} · {{mean}} + {{}})")
        root = bias1 * (math.sqrt(after["square"].item() / bias2) + epsilon)
        return mean.times(1 / root, "{} / {root}", root=root)

    return Transform(rule, tell, {"mean": 0.0, "square": 0.0})


def scale_by_rms(alpha: float = 0.99, epsilon: float = 1e-8, *, centered: bool = False) -> Transform:
    """Divide the gradient by the root of its running mean square, or by its running standard deviation.

    ``s ← α s + (1 − α) g²``, and the result is ``g / (√s + ε)``. When centered, also
    ``a ← α a + (1 − α) g``, and ``s − a²`` takes the place of ``s`` under the root.

    References
    ----------
    Tieleman and Hinton (2012), "Lecture 6.5: rmsprop", Neural networks for machine learning, Coursera.
    Graves (2013), "Generating sequences with recurrent neural networks", arXiv:1308.0850, equations
    38 to 41, for the centered form; ε stands outside the root, as in PyTorch.
    """

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        square = _running(alpha, state["square"], grad * grad)
        if not centered:
            return grad / (np.sqrt(square) + epsilon), {"square": square}
        mean = _running(alpha, state["mean"], grad)
        # A variance is never negative, but the rounding of a difference may be.
        variance = np.maximum(square - mean * mean, 0)
        return grad / (np.sqrt(variance) + epsilon), {"square": square, "mean": mean}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        variance = after["square"].item() - (after["mean"].item() ** 2 if centered else 0)
        root = math.sqrt(max(variance, 0)) + epsilon
        return so_far.times(1 / root, "{} / {root}", root=root)

    return Transform(rule, tell, {"square": 0.0, "mean": 0.0} if centered else {"square": 0.0})


def _running(decay: float, before: Array, value: Array) -> Array:
    average = decay * before
    average += (1 - decay) * value
    return average


def scale_by_adagrad(initial_accumulator: float = 0.0, epsilon: float = 1e-10) -> Transform:
    """Divide the gradient by the root of the sum of all its squares: ``s ← s + g²``, ``g / (√s + ε)``.

    References
    ----------
    Duchi, Hazan and Singer (2011), "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12:2121-2159, in the diagonal form.
    """

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        total = state["sum"] + grad * grad
        return grad / (np.sqrt(total) + epsilon), {"sum": total}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        root = math.sqrt(after["sum"].item()) + epsilon
        return so_far.times(1 / root, "{} / {root}", root=root)

    return Transform(rule, tell, {"sum": initial_accumulator})


def scale_by_learning_rate(decay: float = 0.0) -> Transform:
    """Multiply the gradient by ``learning_rate / (1 + (t − 1) · decay)`` at update `t`; the last link."""

    def rule(grad: Array, param: Array, state: Mapping[str, Array], step: Step) -> tuple[Array, dict[str, Array]]:
        return step.learning_rate / (1 + (step.number - 1) * decay) * grad, {}

    def tell(so_far: Combination, after: Mapping[str, Array], step: Step) -> Combination:
        rate = step.learning_rate / (1 + (step.number - 1) * decay)
        return so_far.times(rate, "{rate} · {}", rate=rate)

    return Transform(rule, tell)


class Updater:
    """A transform at work on a vector of parameters, or on one worker's slice of it.

    Parameters
    ----------
    transform : Transform
        What turns a gradient into the decrease of the parameters.
    size : int
        The number of parameters.
    dtype : float32 or float64
        That of the parameters, the gradients and the state.
    block : int
        How many elements to transform at a time; the results do not depend on it.
    """

    def __init__(self, transform: Transform, size: int, dtype: DTypeLike, block: int = UPDATE_BLOCK) -> None:
        self._transform = transform
        self._size = size
        self._block = block
        self._state = {name: np.full(size, value, dtype) for name, value in transform.slots.items()}

    def update(self, params: Array, grads: Array, step: Step) -> None:
        """Subtract the transformed gradient from `params`, in place, and advance the state.

        Parameters
        ----------
        params, grads : Array, shape (size,)
            `grads` is left as it is.
        step : Step
            Which update this is.
        """
        if params.shape != (self._size,) or grads.shape != (self._size,):
            raise ValueError(f"expected vectors of {self._size}, got {params.shape} and {grads.shape}")
        for start in range(0, self._size, self._block):
            block = slice(start, start + self._block)
            state = {name: vector[block] for name, vector in self._state.items()}
            param = params[block]
            decrease, new_state = self._transform(grads[block], param, state, step)
            param -= decrease
            for name, values in new_state.items():
                state[name][...] = values

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of the state vectors by name, for a checkpoint."""
        return {name: vector.copy() for name, vector in self._state.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take over the state vectors that `state_dict` returned.

        Raises
        ------
        ValueError
            When names, sizes or dtypes are not those of this updater; nothing is changed then.
        """
        expected = {name: (vector.shape, vector.dtype) for name, vector in self._state.items()}
        found = {name: (vector.shape, vector.dtype) for name, vector in state.items()}
        if found != expected:
            raise ValueError(f"optimizer state: expected {_describe(expected)}, got {_describe(found)}")
        for name, vector in state.items():
            self._state[name][...] = vector


def _describe(vectors: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> str:
    return ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in sorted(vectors.items())) or "nothing"


def _decay(rate: float) -> tuple[Transform, ...]:
    return (add_weight_decay(rate),) if rate else ()


def _momentum(decay: float, *, nesterov: bool = False) -> tuple[Transform, ...]:
    return (momentum(decay, nesterov=nesterov),) if decay else ()


@dataclass(frozen=True, slots=True)
class Sgd:
    """Stochastic gradient descent, with momentum and L2 regularization if wanted; `torch.optim.SGD`."""

    learning_rate: float = 1e-3
    """The step's size, which a schedule may change, for example `0.01`."""
    momentum: float = 0.0
    """The share of the last step that the next one keeps, for example `0.9`."""
    nesterov: bool = False
    """Look ahead along the momentum."""
    weight_decay: float = 0.0
    """L2 regularization: times the parameter, added to its gradient, for example `0.0005`."""
    type: Literal["sgd"] = "sgd"
    usual_rate: ClassVar[float] = 0.01
    """The customary learning rate to start with."""

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "learning_rate", "weight_decay"),
            within(self, 0, 1, "momentum", open_high=True),
            [("nesterov", "needs a momentum above 0")] if self.nesterov and not self.momentum else [],
        )

    def transform(self) -> Transform:
        """Return the chain that makes this optimizer's updates."""
        return chain(
            *_decay(self.weight_decay),
            *_momentum(self.momentum, nesterov=self.nesterov),
            scale_by_learning_rate(),
        )


@dataclass(frozen=True, slots=True)
class Adam:
    """Steps of about the learning rate in every parameter; `torch.optim.Adam`, weight decay as L2."""

    learning_rate: float = 1e-3
    """The step's size, which a schedule may change, for example `0.01`."""
    betas: tuple[float, float] = (0.9, 0.999)
    """The decay rates of the averages of the gradient and of its square."""
    epsilon: float = 1e-8
    """Added to the divisor."""
    weight_decay: float = 0.0
    """L2 regularization: times the parameter, added to its gradient, for example `0.0005`."""
    type: Literal["adam"] = "adam"
    usual_rate: ClassVar[float] = 0.001

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "learning_rate", "weight_decay"),
            _check_betas(self.betas),
            within(self, 0, math.inf, "epsilon", open_low=True),
        )

    def transform(self) -> Transform:
        """Return the chain that makes this optimizer's updates."""
        return chain(
            *_decay(self.weight_decay),
            scale_by_adam(self.betas, self.epsilon),
            scale_by_learning_rate(),
        )


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam with weight decay decoupled from the gradient's scaling; `torch.optim.AdamW`."""

    learning_rate: float = 1e-3
    """The step's size, which a schedule may change, for example `0.01`."""
    betas: tuple[float, float] = (0.9, 0.999)
    """The decay rates of the averages of the gradient and of its square."""
    epsilon: float = 1e-8
    """Added to the divisor."""
    weight_decay: float = 0.01
    """The learning rate times this is taken off each parameter, apart from its gradient."""
    type: Literal["adamw"] = "adamw"
    usual_rate: ClassVar[float] = 0.001

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "learning_rate", "weight_decay"),
            _check_betas(self.betas),
            within(self, 0, math.inf, "epsilon", open_low=True),
        )

    def transform(self) -> Transform:
        """Return the chain that makes this optimizer's updates."""
        return chain(
            scale_by_adam(self.betas, self.epsilon),
            *_decay(self.weight_decay),
            scale_by_learning_rate(),
        )


@dataclass(frozen=True, slots=True)
class RmsProp:
    """Gradients divided by their recent root mean square; `torch.optim.RMSprop`."""

    learning_rate: float = 0.01
    """The step's size, which a schedule may change, for example `0.01`."""
    alpha: float = 0.99
    """The decay rate of the average of the squared gradient."""
    epsilon: float = 1e-8
    """Added to the divisor."""
    weight_decay: float = 0.0
    """L2 regularization: times the parameter, added to its gradient, for example `0.0005`."""
    momentum: float = 0.0
    """The share of the last step that the next one keeps, for example `0.9`."""
    centered: bool = False
    """Divide by the standard deviation of the gradient instead of its root mean square."""
    type: Literal["rmsprop"] = "rmsprop"
    usual_rate: ClassVar[float] = 0.001

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "learning_rate", "weight_decay"),
            within(self, 0, 1, "alpha", "momentum", open_high=True),
            within(self, 0, math.inf, "epsilon", open_low=True),
        )

    def transform(self) -> Transform:
        """Return the chain that makes this optimizer's updates."""
        return chain(
            *_decay(self.weight_decay),
            scale_by_rms(self.alpha, self.epsilon, centered=self.centered),
            *_momentum(self.momentum),
            scale_by_learning_rate(),
        )


@dataclass(frozen=True, slots=True)
class Adagrad:
    """Gradients divided by the root of the sum of all their squares; `torch.optim.Adagrad`."""

    learning_rate: float = 0.01
    """The step's size, which a schedule may change, for example `0.01`."""
    learning_rate_decay: float = 0.0
    """The rate is divided by 1 + this · the updates so far."""
    weight_decay: float = 0.0
    """L2 regularization: times the parameter, added to its gradient, for example `0.0005`."""
    initial_accumulator: float = 0.0
    """What the sum of squared gradients starts at."""
    epsilon: float = 1e-10
    """Added to the divisor."""
    type: Literal["adagrad"] = "adagrad"
    usual_rate: ClassVar[float] = 0.01

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "learning_rate", "learning_rate_decay", "weight_decay", "initial_accumulator"),
            within(self, 0, math.inf, "epsilon", open_low=True),
        )

    def transform(self) -> Transform:
        """Return the chain that makes this optimizer's updates."""
        return chain(
            *_decay(self.weight_decay),
            scale_by_adagrad(self.initial_accumulator, self.epsilon),
            scale_by_learning_rate(self.learning_rate_decay),
        )


def _check_betas(betas: tuple[float, float]) -> Iterable[tuple[str, str]]:
    if not all(0 <= beta < 1 for beta in betas):
        yield "betas", f"expected two numbers from 0 below 1, got {show(betas)}"


Optimizer = Sgd | Adam | AdamW | RmsProp | Adagrad
"""A new optimizer is one more member: the config finds it by its `type`."""
