"""The speed of pushforward beside its peers, each in a process of its own, in one run: ``make bench``."""
