"""`openmofi audit`: labels of a selection, drawn at random, and answers to them -> a certificate.

I2E/select/NAME/audits/BY/answers.jsonl       every answer, as it was given
I2E/select/NAME/audits/BY/certificate.json    what follows from them
I2E/select/NAME/audits/BY/certificate.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openmofi.config import AuditSettings
from openmofi.errors import SettingsError
from openmofi.export.samples import Selected
from openmofi.files.folders import local_file, lock_file
from openmofi.review.audit.answers import AnswerFile, read_answers
from openmofi.review.audit.certificate import Audited, certificate, write_certificate
from openmofi.review.audit.draws import Draw, draw
from openmofi.review.audit.page import write_check_page
from openmofi.review.audit.result import StratumBound
from openmofi.select.digest import AUDITS, selection_digest

BACK, QUIT = "back", "quit"

Ask = Callable[[Draw, "Audited"], str]
"""Shows a label and returns yes, no, unsure, BACK or QUIT."""


@dataclass(frozen=True)
class AuditSummary:
    """What is known by now."""

    out: Path
    certificate: Path
    labels: int
    """Of the selection."""
    planned: int
    checked: int
    unread: int
    """Answers after the first draw that has none; they do not count."""
    bounds: list[StratumBound]
    """The whole first."""


def audit(
    selection: Path | str,
    *,
    settings: AuditSettings | None = None,
    ask: Ask | None = None,
    answers: Path | str | None = None,
    page: Path | str | None = None,
) -> AuditSummary:
    """Draws labels, takes answers to them, and writes what follows.

    The same call goes on where the last one stopped.

    Args:
        selection: output of `select`, I2E/select/NAME.
        settings: see `config.AuditSettings`.
        ask: is asked about every label that has no answer yet.
        answers: file with answers, such as the page's.
        page: HTML file to write, on which the labels can be checked.

    Raises:
        InputError: there is no such selection, the answers cannot be read, or another process asks.
        MismatchError: earlier answers are to another selection or seed.
        SettingsError: the name is invalid.
    """
    settings = settings or AuditSettings()
    if not re.fullmatch(r"\w[\w.-]*", settings.by):
        raise SettingsError(
            f"--by cannot be {settings.by!r}; use letters, digits, '-', '_' and '.'."
        )
    selected = Selected(Path(selection))
    digest = selection_digest(selected.folder)
    out = selected.folder / AUDITS / settings.by
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("ab") as lock:
        busy = (
            f"Another process takes answers by {settings.by!r}; wait for it, or give another --by."
        )
        lock_file(lock, out, busy=busy)
        given = AnswerFile(out / "answers.jsonl", digest=digest, seed=settings.seed, by=settings.by)
        checks = max(settings.checks, *given.given, 1)  # nothing that was answered is left out
        strata, draws = draw(selected.folder, digest, seed=settings.seed, checks=checks)
        audited = Audited(
            selected.folder, selected.card, digest, strata, draws, given, settings.confidence
        )
        if answers is not None:
            for label, answer in read_answers(Path(answers), draws, given.head):
                if given.given.get(label.number) != answer:
                    given.add(label, answer)
        if page is not None:
            write_check_page(local_file(page), audited)
        try:
            if ask is not None:
                _take_answers(audited, ask)
        finally:
            path = write_certificate(out, certificate(audited))
    checked = len(given.unbroken())
    labels = int(strata.table.labels.sum())
    unread = len(given.given) - checked
    return AuditSummary(out, path, labels, len(draws), checked, unread, audited.bounds())


def _take_answers(audited: Audited, ask: Ask) -> None:
    """Asks until every label has an answer, or the person stops."""
    given = audited.answers
    while (done := len(given.unbroken())) < len(audited.draws):
        said = ask(audited.draws[done], audited)
        if said == QUIT:
            return
        if said != BACK:
            given.add(audited.draws[done], said)
        elif done:
            given.add(audited.draws[done - 1], None)
