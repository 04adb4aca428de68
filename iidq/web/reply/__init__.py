"""Writing replies: JSON shapes, errors, entity tags."""
