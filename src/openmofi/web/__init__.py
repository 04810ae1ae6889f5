"""A compiled encoder and its entities -> a page that tags images on the visitor's machine."""

from openmofi.web.site import SiteSummary, write_site

__all__ = ["SiteSummary", "write_site"]
