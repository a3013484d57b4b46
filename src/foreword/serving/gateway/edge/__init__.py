"""The HTTP connection itself: limits on what a client can make large or slow."""

from foreword.serving.gateway.edge.compose import Edge, edge
from foreword.serving.gateway.edge.doors import PRINCIPAL
from foreword.serving.gateway.edge.lag import LagMonitor
from foreword.serving.gateway.edge.listening import guarded_config, uvicorn_config
from foreword.serving.gateway.edge.protocol import protocol
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.stamp import REQUEST_ID
from foreword.serving.gateway.edge.types import Believe

__all__ = [
    "PRINCIPAL",
    "REQUEST_ID",
    "Believe",
    "Edge",
    "EdgeSettings",
    "LagMonitor",
    "edge",
    "guarded_config",
    "protocol",
    "uvicorn_config",
]
