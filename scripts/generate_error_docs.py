"""Write docs/errors.md from the error codes: `python scripts/generate_error_docs.py [OUTPUT_FILE]`."""

import json
import sys
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from trygon.deployments.api.errors import GRPC_STATUS, error_body
from trygon.errors import ErrorCode, InferenceError

ROOT = Path(__file__).resolve().parent.parent
CATEGORIES = {
    "REQUEST": "The request as bytes: its framing, its JSON, its parameters.",
    "TENSOR": "The request as tensors: names, datatypes, shapes and values.",
    "AUTH": "Who asks.",
    "TENANT": "On whose behalf.",
    "QUOTA": "How much of it is left.",
    "MODEL": "The model that is asked for: its name, its versions, its files.",
    "ROUTING": "Where the model runs.",
    "RUNNER": "Running the model.",
    "DEVICE": "What the model runs on.",
    "STORAGE": "Where models and data are kept.",
    "SYSTEM": "The server itself.",
}
INTRODUCTION = """\
# Errors

This page is generated from `errors.py` by `scripts/generate_error_docs.py`.

Every error has a code, which never changes its meaning; match on it rather than on the message. Over HTTP the body is
JSON, and routes below `/v2` repeat the message as `error`, where clients of KServe v2 look for it:

```json
{example}
```

Over gRPC the message is the status text, and the trailing metadata hold `trygon-error-code` and `x-request-id`. In a
`ModelStreamInfer` stream it is `error_message`, and the answer's parameter `trygon_error_code` holds the code.

`retryable` says whether the very same request may succeed later. `requestId` is the caller's own `X-Request-ID` (up to
128 visible ASCII characters) or else a new one; quote it when you report a fault.
"""


def error_docs() -> str:
    """Return the page."""
    parts = [INTRODUCTION.replace("{example}", _example())]
    for category, codes in groupby(sorted(ErrorCode, key=_place), key=_category):
        parts.append(f"\n## {category}\n\n{CATEGORIES[category]}\n\n")
        parts.append("| Code | HTTP | gRPC | Retryable | What to do |\n|---|---|---|---|---|\n")
        parts.extend(_row(code) for code in codes)
    return "".join(parts)


def _example() -> str:
    error = InferenceError(ErrorCode.MODEL_NOT_FOUND, "Request for unknown model: 'digit' is not found", model="digit")
    body = error_body(
        error,
        request_id="01980a3c-7b1e-7c44-9f0e-3d5c1f6a2b90",
        timestamp=datetime(2026, 1, 31, 12, tzinfo=UTC),
        triton=True,
    )
    return json.dumps(json.loads(body), indent=2)


def _category(code: ErrorCode) -> str:
    return code.name.partition("_")[0]


def _place(code: ErrorCode) -> int:
    return list(CATEGORIES).index(_category(code))


def _row(code: ErrorCode) -> str:
    anchor = f'<a id="{code.name.lower()}"></a>`{code.name}`'
    retryable = "yes" if code.retryable else "no"
    return f"| {anchor} | {code.http_status} | {GRPC_STATUS[code].name} | {retryable} | {code.help} |\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "errors.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(error_docs(), encoding="utf-8")
