"""Legged locomotion for every engine: robots as facts, and one text of observations, rewards and ends of an episode.

An engine fills a `view.View` from its own state and calls the tables of `tables`; nothing here knows a simulator.
"""
