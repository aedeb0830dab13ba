"""The JSON Schema of ``privacy_report.json``, made from its types: ``python -m securefl.report.schema`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from securefl.report.document import Report

PATH: Final = Path(__file__).with_name("privacy_report.schema.json")


def schema() -> bytes:
    """The schema (draft 2020-12), indented; the same bytes for the same types."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(Report)
    return msgspec.json.format(msgspec.json.encode(made, order="deterministic"), indent=1) + b"\n"


if __name__ == "__main__":
    PATH.write_bytes(schema())
