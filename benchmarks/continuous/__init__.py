"""Continuous flows beside their peers, at one field and one tolerance, in one run."""
