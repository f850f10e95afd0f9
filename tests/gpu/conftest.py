"""The program of ``check_parallel`` runs on ranks with a GPU; doctest would import it."""

collect_ignore = ["rank_program.py"]
