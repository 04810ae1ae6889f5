"""Stage 9c, serve: the web page and its REST interface."""

from openmofi.serve.app import make_app
from openmofi.serve.run import serve

__all__ = ["make_app", "serve"]
