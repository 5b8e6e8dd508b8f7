"""What all commands share: errors as one paragraph, ``--debug``, exit statuses, and ``key=value`` options."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeVar

import typer

from mlipcluster.errors import MismatchError, MLIPClusterError, RecordError
from mlipcluster.recreation.printing import paragraph

FAILED, MISMATCH, DAMAGED, INTERRUPTED = 1, 5, 6, 130
"""Exit statuses: an error or a failed task; code, environment or weights not as recorded; a damaged file; Ctrl-C.

Typer's own for a wrong command line is 2; `Audit.exit_status` has 0, 3 and 4.
"""

F = TypeVar("F", bound=Callable[..., Any])

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Other")]


def command(function: F) -> F:
    """Turn what a command raises into one paragraph on stderr and an exit status; its ``debug`` shows tracebacks."""

    @functools.wraps(function)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            with _warnings_as_paragraphs():
                return function(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say("interrupted; what is done is saved")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if _is_usage(error):
                raise
            _tell(error, debug=bool(kwargs.get("debug")))
            raise typer.Exit(_status(error)) from None

    return told  # type: ignore[return-value]


@contextlib.contextmanager
def _warnings_as_paragraphs() -> Iterator[None]:
    """Show what is meant for users without the line of code that says it."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def shown(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if category is UserWarning:
                say(f"warning: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = shown
        yield


def say(text: str) -> None:
    """Write one paragraph on stderr; control characters, which a file of a stranger may hold, as escapes."""
    print(f"mlipcluster: {paragraph(text)}", file=sys.stderr)


def usage_error(text: str) -> Exception:
    """A wrong command line: raise it, and the exit status is 2."""
    return typer.BadParameter(text)


def pairs(option: str, given: Iterable[str]) -> dict[str, Any]:
    """``key=value`` options; a value that is JSON is read as JSON, anything else is text."""
    found: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise usage_error(f"{option} {item!r}: write key=value, for example {option} fmax=0.01")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        words: dict[str, Any] = {"True": True, "False": False, "None": None}
        return words.get(text, text)


def _is_usage(error: Exception) -> bool:
    return isinstance(error, typer.BadParameter)


def _status(error: Exception) -> int:
    if isinstance(error, MismatchError):
        return MISMATCH
    return DAMAGED if isinstance(error, RecordError) else FAILED


def _tell(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, MLIPClusterError):
        say(str(error))
    elif isinstance(error, OSError):
        say(f"{error}.")
    else:
        say(f"{type(error).__name__}: {error} (--debug shows where)")
