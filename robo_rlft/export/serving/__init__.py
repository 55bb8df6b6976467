"""A policy on another machine: the server of a controller bundle, and its clients. A bundle needs no torch."""
