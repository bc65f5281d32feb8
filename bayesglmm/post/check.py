"""What every function of a fit asks first: is it one?"""

from __future__ import annotations

from bayesglmm.errors import ChoiceError


def check_fit(fit: object, what: str, instead: str = "model.fit()") -> None:
    """Raise unless `fit` is a fit; most often it is a model that has yet to be fitted.

    Parameters
    ----------
    fit
        What was given.
    what
        The function it was given to, for the message.
    instead
        What to write.

    Raises
    ------
    ChoiceError
        For anything else.
    """
    from bayesglmm.fit import Fit  # which names these functions in its methods

    if not isinstance(fit, Fit):
        raise ChoiceError(
            f"{what} needs a fit; got {type(fit).__name__}. Fit the model first: {instead}"
        )
