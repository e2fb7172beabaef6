"""Papers that ship with panelbench."""
