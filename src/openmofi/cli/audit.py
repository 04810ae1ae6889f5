"""The verb `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.output import print_json, print_table, quoted, say_next
from openmofi.config import AuditSettings
from openmofi.errors import SettingsError

if TYPE_CHECKING:
    from openmofi.review.audit import AuditSummary


@app.command
def audit(
    selection: Path,
    /,
    *,
    settings: Annotated[AuditSettings, Flags] = AuditSettings(),
    page: Annotated[Path | None, Out] = None,
    answers: Path | None = None,
    verify: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Check labels one by one, and learn how many are right at least; stop whenever you like.

    Keys: y yes, n no, u unsure (counts as wrong), b back, q quit. The same command goes on.

    Example: openmofi audit i2e/select/default --checks 300 --by anna

    Args:
        selection: Output of `openmofi select`: I2E/select/NAME.
        settings: One option per field.
        page: HTML file to write, on which the labels can be checked in a browser; nothing is asked.
        answers: File with answers, such as the page's download; nothing is asked.
        verify: Certificate of an audit of this selection; draws and computes it again, and asks
            nothing.
        as_json: Print what is known by now as JSON; nothing is asked.
    """
    from openmofi.review.audit import audit as run_audit

    if verify is not None:
        if page or answers:
            raise SettingsError("--verify goes with neither --page nor --answers; leave them out.")
        _verify(selection, verify, as_json)
        return
    ask = None
    if page is None and answers is None and not as_json:
        from openmofi.review.audit.terminal import TerminalAsker

        ask = TerminalAsker()
    summary = run_audit(selection, settings=settings, ask=ask, answers=answers, page=page)
    if as_json:
        print_json(summary)
        return
    _say(summary)
    this = f"openmofi audit {quoted(selection)}{_flags(settings)}"
    if page is not None:
        print(f"wrote {page} ({summary.planned:,} labels to check)")
        say_next(f"{this} --answers answers.jsonl")
    elif summary.checked < summary.planned:
        say_next(this)
    else:
        say_next(f"openmofi export {quoted(selection)} --out {quoted(selection.name)}")


def _verify(selection: Path, certificate: Path, as_json: bool) -> None:
    from openmofi.export.audits import floor_percent
    from openmofi.review.audit import verify as run_verify

    found = run_verify(selection, certificate)
    if as_json:
        print_json(found)
        return
    print(
        f"{certificate} repeats: the same {found.checked:,} labels are drawn with seed "
        f"{found.seed}, and the answers by {found.by} give the same bounds; at least "
        f"{floor_percent(found.at_least)} of all labels are right"
    )


def _flags(settings: AuditSettings) -> str:
    """Returns the flags of settings that are not the defaults."""
    default = AuditSettings()
    return "".join(
        f" --{name} {quoted(str(value))}"
        for name, value in vars(settings).items()
        if value != getattr(default, name)
    )


def _say(summary: AuditSummary) -> None:
    """Prints what is known."""
    from openmofi.export.audits import floor_percent

    if not summary.checked and not summary.unread:
        print(f"{summary.labels:,} labels, none checked yet")
        return
    rows = [
        (
            row.name,
            *(f"{n:,}" for n in (row.labels, row.checked, row.right, row.wrong, row.unsure)),
            "" if row.estimate is None else f"{row.estimate:.1%}",
            floor_percent(row.at_least),
        )
        for row in summary.bounds
    ]
    heads = ("", "labels", "checked", "right", "wrong", "unsure", "estimate", "at least")
    print_table(heads, rows)
    if summary.unread:
        print(
            f"note: {summary.unread:,} answers come after label {summary.checked + 1:,}, which has "
            "none, and do not count yet"
        )
    print(f"wrote {summary.certificate} ({summary.checked:,} of {summary.planned:,} checks)")
