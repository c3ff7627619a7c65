"""Bounds that the config and the command line share; without pydantic's types, which help does not need."""

LARGEST = 2**31 - 1
"""Of a whole number that counts something: what MPI and the runtime can count."""

MOST_THREADS = 1024
"""Per rank."""
