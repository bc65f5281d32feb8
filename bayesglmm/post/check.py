"""What functions of a fit ask first: is it one, and is an executor one?"""

from __future__ import annotations

from concurrent.futures import Executor

from bayesglmm.errors import ChoiceError, OptionError


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


def check_executor(executor: object) -> None:
    """Raise :class:`OptionError` unless this is None or can share work."""
    if executor is not None and not isinstance(executor, Executor):
        raise OptionError(
            f"executor is {type(executor).__name__}; give an executor of concurrent.futures such "
            "as ThreadPoolExecutor(), or None"
        )
