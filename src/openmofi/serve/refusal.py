"""How the server refuses a request: a status, a snake_case code and one sentence.

{"error": {"code": "image_too_large", "message": "The image has ..."}}
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from openmofi.errors import OpenMOFIError
from openmofi.serve.replies import Failure


class Refusal(HTTPException):
    """Ends a request with a status, a code and a sentence."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ):
        super().__init__(status, message, dict(headers or {}))
        self.code = code

    def response(self) -> JSONResponse:
        """Returns the refusal as an answer."""
        said = {"error": {"code": self.code, "message": self.detail}}
        return JSONResponse(said, self.status_code, self.headers)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI description of refusals with these statuses."""
    return {
        status: {"model": Failure, "description": HTTPStatus(status).phrase} for status in statuses
    }


def add_handlers(app: FastAPI) -> None:
    """Gives all errors of an app the same form."""
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(OpenMOFIError, _answer_mistake)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refusal):
        return error.response()
    if error.status_code == 400:  # json.loads gave up, for example on 5,000 digits or brackets
        return Refusal(422, "invalid_request", "The body cannot be read as JSON.").response()
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return Refusal(error.status_code, code, f"{phrase}.", error.headers).response()


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    """Names the place of a request's first mistake, but not the value, which may be unsafe."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    message = str(first["msg"]).rstrip(".")
    shown = f"{place}: {message}.".encode(errors="replace").decode()
    return Refusal(422, "invalid_request", shown).response()


async def _answer_mistake(_: Request, error: Exception) -> JSONResponse:
    return Refusal(400, "bad_request", str(error).encode(errors="replace").decode()).response()


async def _answer_bug(_: Request, __: Exception) -> JSONResponse:
    """Reveals nothing of the internals; uvicorn logs the traceback."""
    return Refusal(500, "internal_error", "The server failed; its log says why.").response()
