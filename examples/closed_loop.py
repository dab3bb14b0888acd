"""Hold a TTL line high while a decoded value is above a threshold, and low whenever it is not known."""

import argparse
import signal

from runtime.client import Subscriber


def level_for(value: float | None, threshold: float, high: bool) -> bool:
    """The next level: 20 % of hysteresis, and low where there is no fresh value."""
    return value is not None and value > (0.8 * threshold if high else threshold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="tcp://127.0.0.1:5571")
    parser.add_argument("--output", default="wheel_speed", help="name of a continuous output")
    parser.add_argument("--threshold", type=float, default=1.0, help="in the output's unit")
    options = parser.parse_args()
    name, high = options.output, False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain kill leaves the line low, too
    with Subscriber(options.address) as link:
        try:
            while not link.ended:
                value = link.value(name, timeout_ms=60)
                before, high = high, level_for(value, options.threshold, high)
                if high != before:
                    print(f"TTL {int(high)}  {name} {'none' if value is None else round(value, 3)}", flush=True)
        except KeyboardInterrupt:
            pass
        except KeyError as error:
            raise SystemExit(f"{error.args[0]}; name one with --output") from None
        finally:
            print(f"TTL 0  end: {link.stale} stale, {link.missed} missed, {link.malformed} malformed", flush=True)


if __name__ == "__main__":
    main()
