"""`select.poll` as on macOS."""

import select


class MacPoll:
    """Reports a hangup only if it was asked for (bsd/kern/sys_generic.c); Linux always reports it."""

    def __init__(self):
        self._poll, self._events = _LINUX_POLL(), 0

    def register(self, descriptor, events):
        self._events = events
        self._poll.register(descriptor, events)

    def poll(self, timeout=None):
        return self._poll.poll(timeout) if self._events else []


_LINUX_POLL = getattr(select, "poll", None)  # not on Windows
