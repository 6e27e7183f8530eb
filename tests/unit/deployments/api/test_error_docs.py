"""docs/errors.md describes the error codes as they are."""

import runpy
from pathlib import Path

from trygon.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "errors.md"
SCRIPT = ROOT / "scripts" / "generate_error_docs.py"


def test_the_page_is_up_to_date() -> None:
    generated = runpy.run_path(str(SCRIPT))["error_docs"]()
    assert PAGE.read_text(encoding="utf-8") == generated, "run: python scripts/generate_error_docs.py"


def test_every_code_has_a_row_and_the_anchor_that_errors_link_to() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for code in ErrorCode:
        anchor = code.documentation_url.partition("#")[2]
        assert f'<a id="{anchor}"></a>`{code.name}`' in text
