"""The plugin interfaces: everything that the author of a plugin has to read."""

from framework.interfaces.eviction import CachedBlock, EvictionPolicy, ScorePolicy
from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict

__all__ = [
    "BatchShape",
    "CachedBlock",
    "EvictionPolicy",
    "GraphKey",
    "GraphLimits",
    "GraphScope",
    "GraphStrategy",
    "Queue",
    "RequestView",
    "SamplingParams",
    "Scheduler",
    "ScorePolicy",
    "StepPlan",
    "Verdict",
]
