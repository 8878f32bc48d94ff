"""What greentls costs and gains, side by side with the field: `greentls bench`, `make bench`.

program.py   the command: rounds, progress, results
suites.py    what is measured, of whom
report.py    results as tables and as drawings
targets.py   the ratios that greentls is to reach
running.py   starts servers and the load generator, and ends them
machine.py   cores, memory, versions
load.c       the load generator
floor.c      a server in C: what there is to save
peers/       the servers
probes/      what is measured within one process
"""
