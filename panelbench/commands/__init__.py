"""What the command line offers and prints."""
