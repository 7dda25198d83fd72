"""What each token was worth, why it was chosen, and what an update did to it.

inspector   ``inspect``, which makes the report of some episodes and a policy; the checks of what it is given
comparison  ``compare``, of two policies on the same prompts
updates     ``inspect_update``: what an update does to each token, and why
pushes      what a loss does to the probability of each token, recorded from the agent's own gradient
loss_comparison   ``compare_losses``: one batch through the losses of five algorithms
subject     the policies that can be inspected, and the return that their values are of
columns     the columns that need no rollouts: of distributions, values and rewards
table       numbers of each token of some episodes, and what each column means
report      the result of an inspection: episodes, tokens, alarms, branches
shading     the colours of tokens by a column
terminal    reports as coloured text, by rich
notebook    reports as HTML of a notebook's cell
page        one static HTML file of a report
statistics  numbers of one update of a training run
alarms      statistics of a run that leave their bounds, as a callback and over finished runs
readiness   what keeps an agent from learning, before the training
replay      the states that actions of past episodes visited, rebuilt in a copy of their environment
advantages  advantages and values by rollouts from those states, or exact where texts can be enumerated
branches    values of other actions in a few states, with sample continuations
credit      what a score owes to a token, by re-scoring, and what a decision depended on, by masking
"""

from textgym_agents.inspection.advantages import (
    AdvantageEstimate,
    advantage_mc,
    exact_values,
)
from textgym_agents.inspection.alarms import RULES, Alarms, Rule, find_alarms
from textgym_agents.inspection.branches import branch_views
from textgym_agents.inspection.comparison import compare
from textgym_agents.inspection.credit import leave_one_out, occlusion, prefix_credit
from textgym_agents.inspection.inspector import inspect
from textgym_agents.inspection.loss_comparison import LossComparison, compare_losses
from textgym_agents.inspection.pushes import PushRecorder
from textgym_agents.inspection.readiness import Finding, Findings, preflight
from textgym_agents.inspection.report import Alarm, Branch, EpisodeView, Report, TokenView
from textgym_agents.inspection.table import COLUMNS, Column, TokenTable
from textgym_agents.inspection.updates import UpdateReport, inspect_update
from textgym_agents.intervals import mean_interval
from textgym_agents.state_replay import samples_of

__all__ = [
    "COLUMNS",
    "RULES",
    "AdvantageEstimate",
    "Alarm",
    "Alarms",
    "Branch",
    "Column",
    "EpisodeView",
    "Finding",
    "Findings",
    "LossComparison",
    "PushRecorder",
    "Report",
    "Rule",
    "TokenTable",
    "TokenView",
    "UpdateReport",
    "advantage_mc",
    "branch_views",
    "compare",
    "compare_losses",
    "exact_values",
    "find_alarms",
    "inspect",
    "inspect_update",
    "leave_one_out",
    "mean_interval",
    "occlusion",
    "prefix_credit",
    "preflight",
    "samples_of",
]
