"""The field benchmark: Trygon beside the servers that people use today, on the same cores, models and load.

Ask it for a run (`python -m field.run --help`, from benchmarks/). It never changes a server's code, and reports no
figures of a run in which a request failed. `programs/` is what runs in the peers' own environments.
"""
