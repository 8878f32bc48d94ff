"""What waiting needs, once."""
