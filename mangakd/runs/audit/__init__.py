"""From an exported model back to the rows: what made what, and whether each file still has the hash that was recorded."""
