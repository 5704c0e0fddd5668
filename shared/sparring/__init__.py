"""The kernel and the SDK of Sparring: one log, folds over it, and services that only append facts."""

__version__ = "0.1.0"
