"""Routes for what a selection kept and refused, and for the reports of evaluations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import HTMLResponse
from pydantic_core import from_json

from openmofi.serve import reasons
from openmofi.serve.explain import MEANINGS
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.served import Now

router = APIRouter(tags=["data"])

_REPORT_CSP = "; ".join(
    [
        "sandbox allow-scripts",
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
        "frame-ancestors 'self'",
    ]
)
"""A report is one file with its own style and scripts, which have no access to the server."""


@router.get("/api/data", operation_id="data", responses=declared(404))
def data(served: Now) -> reasons.DataReply:
    """Returns what the selection kept, and what it refused for which reasons."""
    selection = served.verdicts.selection
    card, funnel = selection.card, selection.card["funnel"]
    steps = [
        reasons.FunnelStep(
            reason=reason,
            count=count,
            share=count / max(funnel["pairs"], 1),
            meaning=MEANINGS.get(reason, ""),
        )
        for reason, count in funnel["refused"].items()
    ]
    return reasons.DataReply(
        name=selection.folder.name,
        pairs=funnel["pairs"],
        kept_images=funnel["kept_images"],
        kept_labels=funnel["kept_labels"],
        entities=funnel["entities"],
        funnel=steps,
        settings=card["settings"],
        threshold=card["threshold"],
        calibration=card["calibration"],
        histogram=card["histogram"],
    )


@router.get("/api/evaluation", operation_id="evaluation")
def evaluation(served: Now) -> reasons.EvaluationReply:
    """Lists the reports with their results."""
    reports, results = [], {}
    for name, file in served.reports.items():
        reports.append(reasons.Report(name=name, url=f"/evaluation/{name}.html"))
        try:  # pydantic_core's parser, unlike json, rejects lone surrogates
            numbers = from_json(file.with_name("results.json").read_bytes())
        except (OSError, ValueError):  # there are no results, or they are damaged
            continue
        if numbers is not None:
            results[name] = numbers
    return reasons.EvaluationReply(reports=reports, results=results or None)


@router.get(
    "/evaluation/{name}.html",
    operation_id="report",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}} | declared(404),
)
def report(
    name: Annotated[str, Path(max_length=200, description="Name of the report.")], served: Now
) -> HTMLResponse:
    """Returns a report for display in a frame."""
    file = served.reports.get(name)
    if file is None or not file.is_file():
        raise Refusal(404, "no_such_report", "There is no such report.")
    headers = {"content-security-policy": _REPORT_CSP, "x-frame-options": "SAMEORIGIN"}
    return HTMLResponse(file.read_bytes(), headers=headers)
