"""Installation: declarations, floors, and the two commands of the Makefile."""
