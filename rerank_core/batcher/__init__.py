"""The micro-batcher: concurrent callers share the passes of one scoring thread."""

from rerank_core.batcher.lanes import Scored
from rerank_core.batcher.micro_batcher import BatcherState, MicroBatcher

__all__ = ["BatcherState", "MicroBatcher", "Scored"]
