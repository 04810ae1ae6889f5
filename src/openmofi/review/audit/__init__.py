"""Labels of a selection, checked by a person -> how many are right at least, and a certificate."""

from openmofi.review.audit.audit import AuditSummary, audit
from openmofi.review.audit.verify import verify

__all__ = ["AuditSummary", "audit", "verify"]
