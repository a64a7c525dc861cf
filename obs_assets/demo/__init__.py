"""The demonstration: a day of messy sample events goes through the whole pipeline, then a report.

people.py    personal data of invented people
agents.py    events of an agent platform: tasks, heartbeats, incidents with personal data
samples.py   a day of event files, and counts of their content
expected.py  the expected outcome of these events
folder.py    the data folder: checked, cleared, locked
receiver.py  a webhook receiver that keeps its requests
steps.py     commands run one after another, with progress and logs
measure.py   the content of the destinations
compare.py   the outcome compared with the expected outcome
report.py    tables for the terminal
run.py       the demonstration from start to end

Dagster is driven from outside, by the commands that a user would type.
"""
