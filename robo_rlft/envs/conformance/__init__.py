"""What every `BatchEnv` must do, as checks you can run on your own: `robo-rlft doctor env.id=MyTask`, or

    from robo_rlft.envs import conformance, make
    conformance.check(lambda num_envs: make("MyTask", num_envs))

or one test each: `@pytest.mark.parametrize("rule", conformance.RULES)` and `conformance.follow(rule, factory)`.

An environment passes a rule, or names it in `BatchEnv.cannot` with the reason.
"""

from robo_rlft.envs.conformance.report import Finding, check, examine, follow
from robo_rlft.envs.conformance.rules import RULES, CannotError, ConformanceError, Factory, Rule

__all__ = ["RULES", "CannotError", "ConformanceError", "Factory", "Finding", "Rule", "check", "examine", "follow"]
