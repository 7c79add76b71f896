"""The launcher: the command line, configs and their overrides, run folders, sweeps, reports.

Its modules: `cli` (main), `config` (load, find_experiment), `run`, `check`, `sweep`, `report`, `listing`.
"""
