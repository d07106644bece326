"""The manual's page of settings is what the config classes say."""

import warnings
from typing import Literal

import pytest
from pydantic import BaseModel, Field

with warnings.catch_warnings():
    # Ray declares its own pydantic fields in a deprecated way.
    warnings.simplefilter("ignore")
    from tools.settings_page import PAGE, page


class Inner(BaseModel):
    """What is inside. More."""

    size_bytes: int = Field(2**20, ge=1024, description="Bytes.")


class Outer(BaseModel):
    """All."""

    name: str = Field(description="Says a|b")
    mode: Literal["a", "b"] = Field("a", description="Which.")
    share: float | Literal["auto"] | None = Field(None, gt=0, le=1, description="How much.")
    inner: Inner = Field(default_factory=Inner)
    others: dict[str, Inner] = Field(default_factory=dict, description="More of them.")


def test_the_committed_page_is_the_generated_one():
    assert PAGE.read_text("utf-8") == page(), "run `make settings`"


def test_a_row_says_what_is_taken_the_default_and_the_meaning():
    rows = [line for line in page((("outer", Outer, "Words."),)).splitlines() if line[:3] == "| `"]
    assert rows == [
        "| `name` | text | required | Says a\\|b. |",
        "| `mode` | `a`, `b` | `a` | Which. |",
        "| `share` | number or `auto` above 0 to 1 | empty | How much. |",
        "| `inner` | [block](#inner) |  | What is inside. More. |",
        "| `others` | names, each with a [block](#inner) |  | More of them. |",
        "| `size_bytes` | whole number from 1,024 | `1048576` (1 MiB) | Bytes. |",
    ]


def test_a_setting_without_a_description_is_refused():
    class Silent(BaseModel):
        quiet: int = 1

    with pytest.raises(ValueError, match=r"Silent\.quiet has no description"):
        page((("silent", Silent, ""),))
