"""Runs a Hypothesis state machine once, with a seed: the same life wherever it runs."""

from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def live_once(life: type[RuleBasedStateMachine], number: int, steps: int, made: tuple[Any, ...]) -> None:
    """One life of this seed, of so many steps at most; without a first one that would be the simplest.

    Args:
        made: what the test has made for it, which it finds as its attribute of that name.
    """
    machine = seed(number)(type("SeededLife", (life,), {"made": made}))
    chosen = settings(
        max_examples=1,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=chosen)
