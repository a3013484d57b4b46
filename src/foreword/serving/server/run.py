"""`foreword serve`: open what is needed, cheapest first, then serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from foreword.serving.contract import Backend, PrefixHost
from foreword.serving.gateway.edge import EdgeSettings, uvicorn_config
from foreword.serving.server.house import House, Model, house, open_registry
from foreword.serving.server.keys import open_store
from foreword.serving.server.operator import operator_port
from foreword.serving.server.place import own_place
from foreword.serving.server.process import Door, Say, bind, serve
from foreword.serving.server.settings import ServeSettings, check
from foreword.signing.store import load_policy
from foreword.telemetry.records import Gauges
