"""A fleet of gateways on loopback that speaks the providers' dialects, in both directions, over real HTTP.

The tests, the demo and the load use it. It is the other side of the wire, so it shares no code with the
service: a mistake of one must not be hidden by the same mistake of the other. It never talks to WhatsApp.
"""

from receiver.sandbox.evolution.host import HostMetrics
from receiver.sandbox.fault import Fault
from receiver.sandbox.fleet import Fleet, open_fleet

__all__ = ["Fault", "Fleet", "HostMetrics", "open_fleet"]
