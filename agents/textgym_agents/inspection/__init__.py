"""What each token was worth, why it was chosen, and what an update did to it.

inspector   ``inspect``, which makes the report of some episodes and a policy
comparison  ``compare``, of two policies on the same prompts
arguments   defaults and checks of what they are given
subject     the policies that can be inspected, and the return that their values are of
columns     columns that need no rollouts, as pure functions
table       numbers of each token of some episodes, and what each column means
report      the result of an inspection: episodes, tokens, alarms, branches
shading     the colours of tokens by a column
terminal    reports as coloured text, by rich
notebook    reports as HTML of a notebook's cell
page        one static HTML file of a report
"""

from textgym_agents.inspection.comparison import compare
from textgym_agents.inspection.inspector import inspect
from textgym_agents.inspection.report import Alarm, Branch, EpisodeView, Report, TokenView
from textgym_agents.inspection.table import COLUMNS, Column, TokenTable

__all__ = [
    "COLUMNS",
    "Alarm",
    "Branch",
    "Column",
    "EpisodeView",
    "Report",
    "TokenTable",
    "TokenView",
    "compare",
    "inspect",
]
