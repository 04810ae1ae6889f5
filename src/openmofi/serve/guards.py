"""What every request passes before a route sees it: checks of its origin, its token and its size.

A page of another site may make the user's browser send requests here. So on a loopback address the
Host must be ours (another site's name may resolve to 127.0.0.1), and requests that change something
must come from our own page (Origin). https://owasp.org/www-community/attacks/csrf
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openmofi.serve.refusal import Refusal

MOST_JSON_BYTES = 2**20
_UPLOADS = "/api/uploads"
_OPEN = frozenset({"/", "/healthz", "/api/login"})
"""Open without a token: the page asks for it and contains no data."""

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "cache-control": "no-cache",
}
"""Headers of every answer that does not set its own."""


def digest(token: str | bytes) -> str:
    """Returns the hash that the cookie holds and by which tokens are compared."""
    # Restores the bytes of a command-line argument that is not UTF-8, to compare with a header's.
    data = token if isinstance(token, bytes) else token.encode(errors="surrogateescape")
    return hashlib.sha256(data).hexdigest()


def same_token(given: str | bytes, token: str) -> bool:
    """Compares tokens in a time that does not depend on them."""
    return hmac.compare_digest(digest(given), digest(token))


def cookie_name(scope: Scope) -> str:
    """Returns the cookie's name with the port, since browsers send cookies to all ports."""
    _, port = scope.get("server") or ("", None)
    return f"openmofi_token_{port}"


class SafeHeaders:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Gate:
    """Refuses requests to other hosts, from other sites' pages, and without the token."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None):
        self.app, self.hosts, self.token = app, frozenset(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                return await refusal.response()(scope, receive, send)
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.partition(":")[0].lower()  # without the port
        if host.startswith("["):
            name = host.partition("]")[0] + "]"
        if self.hosts and name not in self.hosts:
            known = ", ".join(sorted(self.hosts))
            return Refusal(403, "foreign_host", f"This server answers to {known} only.")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _is_foreign(headers, host):
            return Refusal(403, "foreign_origin", "A page of another site may not request this.")
        if self.token is None or scope["path"] in _OPEN or scope["path"].startswith("/static/"):
            return None
        if self._knows(headers, cookie_name(scope)):
            return None
        message = "Pass the server's token as `Authorization: Bearer TOKEN`, or sign in."
        return Refusal(401, "token_needed", message, {"www-authenticate": "Bearer"})

    def _knows(self, headers: Headers, cookie: str) -> bool:
        assert self.token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return same_token(given.strip().encode("latin-1"), self.token)
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(cookie)
        except CookieError:
            morsel = None
        known = morsel.value if morsel else ""
        return hmac.compare_digest(known.encode(), digest(self.token).encode())


class BodyCap:
    """Refuses bodies that are too large, by their stated length or while they arrive."""

    def __init__(self, app: ASGIApp, *, max_upload_bytes: int):
        self.app, self.max_upload_bytes = app, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = self.max_upload_bytes if scope["path"] == _UPLOADS else MOST_JSON_BYTES
        told = Headers(scope=scope).get("content-length", "0")
        too_large = Refusal(413, "body_too_large", f"The body may have {most:,} bytes at most.")
        if not told.isascii() or not told.isdigit() or len(told) > 18 or int(told) > most:
            return await too_large.response()(scope, receive, send)
        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise too_large
            return message

        await self.app(scope, receive_some, send)


def _is_foreign(headers: Mapping[str, str], host: str) -> bool:
    """Returns whether a browser sent the request for a page of another site."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc.lower() != host.lower()
        except ValueError:  # such as for "http://["
            return True
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
