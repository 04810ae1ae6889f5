"""Routes for the page and for signing in."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from openmofi.serve.api.images import IfNoneMatch
from openmofi.serve.guards import cookie_name, digest, same_token
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.replies import Health
from openmofi.serve.requests import Login
from openmofi.serve.served import Now

router = APIRouter(tags=["page"])

_CSP = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect", "frame", "font")),
        "manifest-src 'self'",
        "img-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)


@router.head("/", include_in_schema=False)
@router.get("/", operation_id="page", response_class=HTMLResponse, include_in_schema=False)
async def page(request: Request, served: Now) -> Response:
    """Returns the page; the right token signs in and is removed from the URL."""
    given = request.query_params.get("token")
    shown = HTMLResponse(served.files.page(), headers={"content-security-policy": _CSP})
    if given is None or served.token is None:
        return shown
    if not same_token(given, served.token):
        shown.status_code = 401  # the page asks for the right token
        return shown
    rest = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
    answer = RedirectResponse("/?" + urlencode(rest) if rest else "/", 303)
    _sign_in(request, answer, served.token)
    return answer


@router.get("/static/{name:path}", operation_id="static", include_in_schema=False)
async def static(name: str, served: Now, if_none_match: IfNoneMatch = None) -> Response:
    """Returns a file of the page."""
    found = served.files.answer(name, if_none_match)
    if found is None:
        raise Refusal(404, "not_found", "The page has no such file.")
    return found


@router.post("/api/login", operation_id="login", responses=declared(401), tags=["server"])
async def login(given: Login, served: Now, request: Request, response: Response) -> Health:
    """Exchanges the server's token for a cookie."""
    if served.token is not None and not same_token(given.token, served.token):
        raise Refusal(401, "wrong_token", "That is not the server's token.")
    if served.token is not None:
        _sign_in(request, response, served.token)
    return Health()


def _sign_in(request: Request, response: Response, token: str) -> None:
    name = cookie_name(request.scope)
    response.set_cookie(name, digest(token), httponly=True, samesite="strict")
