"""Readers of foreign data sets: each opens one format as a `Foreign`, which `robo_rlft.data.convert` writes out."""
