"""Graphs of whole decode steps."""

from __future__ import annotations

from framework.interfaces.graph import GraphScope
from framework.registry import GRAPHS
from plugins.graphs.bucketed import Bucketed


@GRAPHS.register("full")
class Full(Bucketed):
    """As `bucketed`, and one replay does all of a step: input gather, forward, head, sampling, feeding the token back.

    Needs a sampler that can be captured, as all of ServeLab's can.
    """

    scope = GraphScope.STEP
