"""Loads pyframe before doctests are collected, so that no op is registered twice."""

import pyframe  # noqa: F401
