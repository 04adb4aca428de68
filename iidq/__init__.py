"""iidq answers "is this file what its creator registered?" for anyone who asks over HTTP."""

__version__ = "0.1.0"
