"""What each token was worth, why it was chosen, and what an update did to it.

table       numbers of each token of some episodes, and what each column means
report      the result of an inspection: episodes, tokens, alarms, branches
"""

from textgym_agents.inspection.report import Alarm, Branch, EpisodeView, Report, TokenView
from textgym_agents.inspection.table import COLUMNS, Column, TokenTable

__all__ = ["COLUMNS", "Alarm", "Branch", "Column", "EpisodeView", "Report", "TokenTable", "TokenView"]
