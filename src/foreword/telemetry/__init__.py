"""What happened, as frozen records, and the sinks that tell it to others."""
