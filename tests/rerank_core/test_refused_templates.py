"""A template of one's own in which something would silently stay unfilled is refused."""

import pytest

from rerank_core.catalog.families import read_template

OWN = """
name: mine
before: ["Q: {query}"]
document: "D: {document}"
behind: ["?", "{instruction}"]
positive: "yes"
instruction_line: "Do: {instruction}"
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"?"', '"? {query}"'), "{query} in `behind` of template .* is never filled; use"),
        (('"?"', '"? {document}"'), "{document} in `behind` of template .* is never filled; use"),
        (("Q:", "{document}"), "{document} in `before` of template .* is never filled; use"),
        (("D:", "{query}"), "{query} in `document` of template .* is never filled; use {document}"),
        (("Do:", "{query}"), "in `instruction_line` of .* is never filled; use {instruction}"),
        (("D:", "{document} and"), "`document` in template .* must end with {document}, its only"),
    ],
)
def test_a_placeholder_that_is_never_filled_is_refused(tmp_path, change, told):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    assert read_template(str(path)).document == "D: {document}"
    path.write_text(OWN.replace(*change))
    with pytest.raises(ValueError, match=told):
        read_template(str(path))
