"""What columns are called, and the two shapes a table of candidates can have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Shape = Literal["pairs", "nested"]


class ColumnNames(BaseModel):
    """What the columns are called in your files. Change the right side, never the left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str = Field("query_id", description="Column that says which rows are ranked together")
    query: str = Field("query", description="Column with the query's text")
    doc_id: str = Field("doc_id", description="Column, or field of a candidate: the document's id")
    text: str = Field("text", description="Column, or field of a candidate: the document's text")
    candidates: str = Field("candidates", description="List column of the nested shape")
    score: str = Field("score", description="Column that the job adds; rename it if yours has one")
    rank: str = Field("rank", description="Column that the job adds, 1 is best")
    calibrated_score: str = Field(
        "calibrated_score", description="Column that scorer.calibration adds: a probability"
    )
    passage: str = Field(
        "passage",
        description="Column that scorer.long_documents: split adds: start and end, in characters,"
        " of a split document's best passage",
    )

    @property
    def needed(self) -> frozenset[str]:
        """The input's columns that no job can do without."""
        return frozenset((self.query_id, self.query, self.doc_id, self.text, self.candidates))
