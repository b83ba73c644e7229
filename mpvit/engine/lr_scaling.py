"""How the learning rate follows the number of images in a step."""

from collections.abc import Callable

from mpvit.errors import UserError

_RULES: dict[str, Callable[[float], float]] = {
    'linear': lambda ratio: ratio,
    'sqrt': lambda ratio: ratio**0.5,
}


def lr_factor(images: int, base: float, rule: str) -> float:
    """What the learning rate of a recipe is multiplied with at another batch size.

    'linear' (Goyal et al. 2017, 'Accurate, Large Minibatch SGD') keeps the update per image the
    same, as long as the gradient itself decides about the size of a step, as in SGD; mmdet scales
    so. Adam and AdamW divide by the gradient's spread, and then the square root keeps the noise of
    the updates the same ('sqrt'; Malladi et al. 2022, 'On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms'; proposed by Krizhevsky 2014, 'One weird trick for parallelizing
    convolutional neural networks').

    Args:
        images: Images of a step over all processes and accumulated batches, at least 1.
        base: Images of a step for which the recipe's learning rate is meant, above 0.
        rule: 'linear' or 'sqrt'.

    Raises:
        UserError: There is no such rule, or ``base`` is not positive.
    """
    if rule not in _RULES:
        raise UserError(f'auto_scale_lr.rule {rule!r} is unknown; choose {" or ".join(_RULES)}')
    if base <= 0:
        raise UserError(f'auto_scale_lr.base_batch_size is {base}; it must be positive')
    return _RULES[rule](images / base)
