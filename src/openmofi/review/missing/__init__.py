"""What is missing from the catalogue: refused images of one name and one look become proposals."""

from openmofi.review.missing.missing import MissingSummary, find_missing, missing_folder

__all__ = ["MissingSummary", "find_missing", "missing_folder"]
