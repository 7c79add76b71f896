"""The launcher: the command line, configs and their overrides, run folders, sweeps, reports.

Import what you need from its modules: `cli` (main), `config` (load, find_experiment), `run`, `check`, `sweep`, `report`.
"""
