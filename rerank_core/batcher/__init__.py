"""The micro-batcher: concurrent callers share the passes of one scoring thread."""

from rerank_core.batcher.lanes import Scored
from rerank_core.batcher.micro_batcher import PASS_S, BatcherState, MicroBatcher
from rerank_core.batcher.pass_rate import PassRate

__all__ = ["PASS_S", "BatcherState", "MicroBatcher", "PassRate", "Scored"]
