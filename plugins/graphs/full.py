"""Graphs of whole decode steps."""

from __future__ import annotations

from framework.interfaces.graph import GraphScope
from framework.registry import GRAPHS
from plugins.graphs.bucketed import Bucketed


@GRAPHS.register("full")
class Full(Bucketed):
    """Like `bucketed`, but one replay does the whole step: input gather, forward, head, sampling, feeding back.

    It needs a sampler that can be captured. All of ServeLab's samplers can.
    """

    scope = GraphScope.STEP
