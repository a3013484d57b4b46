"""Who used what, and what it cost: counted per tenant, prefix version and hour, kept on disk."""

from foreword.telemetry.usage.ledger import UsageSink
from foreword.telemetry.usage.prices import Price, Prices, read_prices
from foreword.telemetry.usage.rows import Counts, Key, Total
from foreword.telemetry.usage.totals import Usage, read_usage

__all__ = [
    "Counts", "Key", "Price", "Prices", "Total", "Usage", "UsageSink", "read_prices", "read_usage",
]  # fmt: skip
