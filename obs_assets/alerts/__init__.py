"""Alert rules and the life of alerts. Pure: nothing is read, kept or sent here.

::

    rules.py      what to watch for; forwards events, or fires on a measure of them
    evaluate.py   (frame, rules) → measurements of one hour, in one scan for each way of grouping
    life.py       measurements of hours, in order → the state of every alert after each hour
    notices.py    states and what was told before → what to tell now, and to whom it is one message
    templates.py  summaries, sandboxed
    receivers.py  a message → the body that Slack, PagerDuty, Teams or a program of yours takes
    backtest.py   all of it over history, without anybody to tell

Keeping states and sending is `obs_assets.delivery`'s.
"""

from obs_assets.alerts.rules import AlertRule, matching, with_rule

__all__ = ["AlertRule", "matching", "with_rule"]
