"""One process put together: registry, engine, gateway, telemetry."""
