"""The command line itself: its help, and how an error becomes one sentence."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from openmofi import __version__
from openmofi.errors import OpenMOFIError
from openmofi.files.folders import check_local

app = App(
    name="openmofi",
    version=__version__,
    help=(
        "Turn noisy image-caption pairs into entity-labelled images, train encoders on them, and "
        "search with them. The verbs, in order: kb build, link, label, select, inspect, train, "
        "embed, evaluate, index, search, tag, serve. `openmofi demo` runs them all on a built-in "
        "world."
    ),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` handles it
)
kb_app = App(name="kb", help="Build or inspect a knowledge base.")
app.command(kb_app)
evaluate_app = App(name="evaluate")
app.command(evaluate_app)
index_app = App(name="index")
app.command(index_app)
tag_app = App(name="tag")
app.command(tag_app)
review_app = App(name="review", help="Correct labels, see what that changes, apply it.")
app.command(review_app)

Flags = Parameter(name="*")
"""Spreads a settings dataclass into one flag per field."""
Json = Parameter(name="--json")
Out = Parameter(validator=lambda _, value: None if value is None else check_local(value))
"""An output path, which must be on this machine; checked before any work."""

app.register_install_completion_command(add_to_startup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a user's mistake is reported in one sentence, with exit code 1.

    With OPENMOFI_DEBUG=1 in the environment, a traceback is printed instead.

    Args:
        arguments: the arguments after `openmofi`; the default is the process's own.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(typed, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        print("openmofi: interrupted; repeat the command to continue", file=sys.stderr)
        print(f"next: {shlex.join(['openmofi', *typed])}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader has ended, such as `| head`
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        known = isinstance(error, (OpenMOFIError, CycloptsError, OSError, MemoryError))
        if not (known or _is_arrow_error(error)) or os.environ.get("OPENMOFI_DEBUG") == "1":
            raise
        print(f"openmofi: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """Describes an error in one sentence."""
    if isinstance(error, CycloptsError):
        return f"{str(error).strip().rstrip('.')}; see `openmofi --help` or add --help to a verb."
    if isinstance(error, MemoryError):
        return "The memory is used up; try a smaller --batch-size, or fewer --workers."
    if _is_arrow_error(error):
        return f"A table is damaged: {str(error).strip().rstrip('.')}; make it again."
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    place = f" ({str(error.filename)!r})" if error.filename is not None else ""
    return f"{reason}{place}; fix that and repeat the command."


def _is_arrow_error(error: Exception) -> bool:
    """Returns whether an error comes from Arrow or DuckDB."""
    return type(error).__module__.startswith(("pyarrow", "_duckdb", "duckdb"))
