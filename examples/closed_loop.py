"""Hold a TTL line high while a decoded value is above a threshold, and low whenever it is not known.

A value with a lead (`lead_ms` in train.toml) is of the moment that the actuator reaches: say with --delay-ms how long
it takes, and you are warned where the lead does not pay for it.
"""

import argparse
import signal
import sys

from runtime.client import Subscriber, moment_of, value_of
from runtime.wire import Decode


def level_for(value: float | None, threshold: float, high: bool) -> bool:
    """The next level: 20 % of hysteresis, and low where there is no fresh value."""
    return value is not None and value > (0.8 * threshold if high else threshold)


def lead_ms(message: Decode, name: str) -> float:
    """How long after its bin the value is of."""
    return (moment_of(message, name) - message.t_end_ns) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="tcp://127.0.0.1:5571")
    parser.add_argument("--output", default="wheel_speed", help="name of a continuous output")
    parser.add_argument("--threshold", type=float, default=1.0, help="in the output's unit")
    parser.add_argument("--delay-ms", type=float, help="what the actuator takes from a message to its effect")
    options = parser.parse_args()
    name, high, warned = options.output, False, options.delay_ms is None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain kill leaves the line low, too
    with Subscriber(options.address) as link:
        try:
            while not link.ended:
                message, ahead_ms = link.receive(timeout_ms=60), 0.0
                value = None if message is None else value_of(message, name)
                if message is not None and value is not None:
                    ahead_ms, late_ms = lead_ms(message, name), message.edge_to_pub_ms + (options.delay_ms or 0.0)
                    if not warned and ahead_ms < late_ms:
                        warned = True
                        print(
                            f"{name} is {ahead_ms:g} ms ahead but acts {late_ms:.1f} ms after its bin", file=sys.stderr
                        )
                before, high = high, level_for(value, options.threshold, high)
                if high != before:
                    ahead = f", {ahead_ms:g} ms ahead" if ahead_ms else ""
                    print(f"TTL {int(high)}  {name} {'none' if value is None else round(value, 3)}{ahead}", flush=True)
        except KeyboardInterrupt:
            pass
        except KeyError as error:
            raise SystemExit(f"{error.args[0]}; name one with --output") from None
        finally:
            print(f"TTL 0  end: {link.stale} stale, {link.missed} missed, {link.malformed} malformed", flush=True)


if __name__ == "__main__":
    main()
