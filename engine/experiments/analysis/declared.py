"""What the settings say of an experiment, for a question that does not say it."""

from dataclasses import replace

from engine.config.experiments import HOLDOUT
from engine.config.serving import EngineConfig
from engine.experiments.analysis.question import Question
from engine.experiments.assign import HELD_OUT, NOT_HELD_OUT


def as_declared(question: Question, config: EngineConfig) -> Question:
    """The question with planned shares and control of the settings, where it leaves them open and they have them.

    The control is the one variant that gets the baseline; where several or none do, the question stays open.
    """
    shares, baselines = _plan(question.experiment, config)
    control = baselines[0] if len(baselines) == 1 else ""
    return replace(question, shares=question.shares or shares, control=question.control or control)


def _plan(experiment: str, config: EngineConfig) -> tuple[dict[str, float], list[str]]:
    if experiment == HOLDOUT and config.holdout.share > 0:
        held = config.holdout.share
        return {HELD_OUT.variant: held, NOT_HELD_OUT.variant: 1.0 - held}, [HELD_OUT.variant]
    for one in config.experiments:
        if one.name == experiment:
            shares = {variant.name: variant.share for variant in one.variants}
            return shares, [variant.name for variant in one.variants if variant.baseline]
    return {}, []
