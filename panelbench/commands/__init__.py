"""What the command line offers and prints."""

JSON_FORMAT = 1
"""Version of what ``--output json`` prints; raised when a key changes its meaning or goes."""
