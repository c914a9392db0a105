"""Diagnosis: what is wrong with a network, its data or its training, from evidence that is collected once."""

from cnnbp_cli.diagnosis.engine import diagnose, diagnose_model
from cnnbp_cli.diagnosis.findings import Diagnosis, Finding, Severity

__all__ = ["Diagnosis", "Finding", "Severity", "diagnose", "diagnose_model"]
