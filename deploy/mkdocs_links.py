"""MkDocs hook: links to files of the repository are checked, then shown as paths.

The pages link to code, which is right in a checkout but leads nowhere from a built site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parent.parent
# [text](../path/in/the/repository#anchor)
_LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace every link that leaves docs/ by its text and path; refuse one that leads nowhere."""

    def shown(link: re.Match[str]) -> str:
        text, path = link.groups()
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_path} links to {path}, which does not exist")
        plain = text.strip("`")
        return f"`{path}`" if plain in (path, Path(path).name) else f"{text} (`{path}`)"

    return _LINK.sub(shown, markdown)
