"""Benchmarks that compare greentls with other TLS servers: python -m benchmarks, make bench.

__main__.py  the command line
program.py   runs the rounds, shows progress, keeps results
suites.py    what is measured, and on which servers
report.py    results as tables and drawings
targets.py   the ratios that greentls should reach
running.py   starts and ends servers and the load generator
machine.py   cores, memory, versions
load.c       the load generator
floor.c      a server in C: the lower bound
peers/       the servers
probes/      measurements within one process
"""
