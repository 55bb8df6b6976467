"""Imported by the process that all workers are forked from, so that they share ManiSkill's memory and start at once.

Nothing is drawn here: a graphics device that is open would not survive the fork.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mani_skill.envs  # noqa: F401
