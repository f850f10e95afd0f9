"""Programs that run on several ranks are no test modules, also not for doctest."""

collect_ignore_glob = ["programs/*"]
