"""Stage 9c, serve: the page that people keep open, and the REST behind it."""

from openmofi.serve.app import make_app
from openmofi.serve.run import serve

__all__ = ["make_app", "serve"]
