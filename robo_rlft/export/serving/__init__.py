"""A policy on another machine: the server of a controller bundle, and its clients. None of it imports torch by itself."""
