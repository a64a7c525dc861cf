"""Alert rules and the life of alerts. Pure: nothing is read, kept or sent here.

::

    rules.py      conditions on events; a rule forwards events, or fires on a measure of them
    evaluate.py   (frame, rules) → measurements of an hour, in one scan for each grouping
    life.py       measurements of hours, in order → the state of every alert after each hour
    notices.py    states and earlier notices → the messages to send now
    templates.py  summaries, in a sandbox
    receivers.py  a message → the body for Slack, PagerDuty, Teams or a program of yours
    backtest.py   all of this over past hours; nothing is sent

`obs_assets.delivery` stores states and sends messages.
"""

from obs_assets.alerts.rules import AlertRule, matching, with_rule

__all__ = ["AlertRule", "matching", "with_rule"]
