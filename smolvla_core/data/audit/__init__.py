"""A one-page check of a dataset before money is spent on it: ``python -m smolvla_core.data.audit ROOT``."""

from smolvla_core.data.audit.page import AuditReport
from smolvla_core.data.audit.report import audit, main

__all__ = ["AuditReport", "audit", "main"]
