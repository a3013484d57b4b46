"""Names of span attributes, in one place because they will change.

OpenTelemetry's `gen_ai.*` names are all in development and moved to a repository of their own in 2026;
these are the ones of schema `SCHEMA`. It has none for prefixes or adapters, so `prefix.*` is ours.
"""

from typing import Final

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
STREAM: Final = "gen_ai.request.stream"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
STATUS: Final = "http.response.status_code"
ERROR: Final = "error.type"

PREFIX_ID: Final = "prefix.id"
PREFIX_VERSION: Final = "prefix.version"
PREFIX_DIGEST: Final = "prefix.digest"
PREFIX_BASE: Final = "prefix.base_digest"
PREFIX_LENGTH: Final = "prefix.length"
PREFIX_TENANT: Final = "prefix.tenant"
PREFIX_TIER: Final = "prefix.cache_tier"
PREFIX_ARM: Final = "prefix.experiment_arm"
PREFIX_FALLBACK: Final = "prefix.fallback_reason"
