"""Personal data in texts: what finds it, and placeholders in its place."""
