"""The demonstration: a day of messy sample events goes through everything, and a report says what became of it.

people.py    personal data of people that do not exist
samples.py   a day of an agent platform's event files, and counts of what is in them
expected.py  what must become of those events
folder.py    the data folder: whose it is, and clearing it
receiver.py  a webhook receiver that keeps what it got
steps.py     commands run one after the other, with visible progress and a log
measure.py   what the destinations hold, asked of themselves
compare.py   the outcome against what must become of the events
report.py    tables for the terminal
run.py       the demonstration from start to end

Dagster is driven from outside, by the commands that a user would type.
"""
