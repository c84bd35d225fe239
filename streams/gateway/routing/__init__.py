"""Where a request goes: which route first, and which one when that has failed.

``choose`` looks at what a route can do, then at which are up, then balances among those; what is
left over are its fallbacks. ``next_try`` decides on a failure: the same route once more, the next
one, or none. ``Health`` remembers what this process has seen of routes, and forgets it with it.
``of_version`` is for functions, whose route has the version that a request asks for.
"""

from streams.gateway.routing.again import next_try
from streams.gateway.routing.choose import Chosen, choose
from streams.gateway.routing.health import Health
from streams.gateway.routing.version import of_version

__all__ = ["Chosen", "Health", "choose", "next_try", "of_version"]
