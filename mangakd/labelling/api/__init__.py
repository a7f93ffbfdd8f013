"""Teachers behind an API: wire formats, limits, retries, prices."""
