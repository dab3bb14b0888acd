"""The options of a command as one value: a dataclass whose fields are typer's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import TypeVar, get_type_hints

T = TypeVar("T")


def taking(options: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Make `command(given: options)` a command with one parameter for each field of the dataclass `options`."""
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(options)  # pyright: ignore[reportArgumentType]: any dataclass
    ]

    def wrap(command: Callable[[T], None]) -> Callable[..., None]:
        def call(**given: object) -> None:
            command(options(**given))

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return wrap
