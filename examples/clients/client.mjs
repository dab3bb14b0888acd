// Act on the newest value of one output, never on an old one: the rules of docs/wire.md, on the port of the newest message.
//   npm install zeromq @msgpack/msgpack
//   node client.mjs tcp://127.0.0.1:5572 wheel_speed [MAX_AGE_MS]
import { existsSync, readFileSync } from "node:fs";
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const [address = "tcp://127.0.0.1:5572", output = "wheel_speed", maxAgeMs = "60"] = process.argv.slice(2);
const SCHEMA = 1, END = 1024, WITHHELD = 1 | 32 | 256; // GAP, HOLD, IDLE: no values
const PROMPT_NS = 20e6, SLACK_NS = 1e6, DRIFT = 2e-4; // rule 3; a clock further ahead is not the publisher's
const BOOT = "/proc/sys/kernel/random/boot_id";
const boot = existsSync(BOOT) ? readFileSync(BOOT, "utf8").trim() : "";
const now = () => Number(process.hrtime.bigint()); // CLOCK_MONOTONIC on Linux, ns
const socket = new Subscriber({ conflate: true, linger: 0, maxMessageSize: 1 << 20 });
socket.connect(address);
socket.subscribe();
let last = null, offset = NaN, learnt = 0, empty = -Infinity; // offset: our clock minus the publisher's, ns

async function receive(waitMs) {
  socket.receiveTimeout = waitMs;
  try { return (await socket.receive())[0]; } catch (error) { if (error.code !== "EAGAIN") throw error; }
  return null;
}

function read(payload) { // a message that has not been read before, else null
  let message = null;
  try { message = decode(payload); } catch { return null; }
  if (message?.schema !== SCHEMA || (last?.seq === message.seq && last.t_pub_ns === message.t_pub_ns)) return null;
  if (message.boot_id !== last?.boot_id || !message.boot_id) offset = NaN; // another clock
  last = message;
  const here = now(), seen = here - message.t_pub_ns;
  if (!Number.isNaN(offset) || here - empty <= PROMPT_NS) { // the smallest offset seen, rising as clocks drift
    offset = Number.isNaN(offset) ? seen : Math.min(seen, offset + DRIFT * (here - learnt));
    learnt = here;
  }
  return message;
}

function value(message) { // of the output if it may be acted on now, else null
  const same = boot && message.boot_id === boot;
  const there = now() - (same ? 0 : offset); // NaN while unknown: then nothing below is true
  const valid = same ? there < message.valid_until_ns : there - message.t_pub_ns < message.valid_for_ms * 1e6;
  const young = there - message.t_end_ns <= maxAgeMs * 1e6 && there - message.t_pub_ns >= -SLACK_NS;
  if (message.flags & WITHHELD) return null;
  if (!(output in message.outputs)) throw new Error(`no output ${output} among ${Object.keys(message.outputs)}`);
  const found = message.outputs[output].value;
  return valid && young && Number.isFinite(found) ? found : null;
}

while (!(last?.flags & END)) {
  let payload = await receive(0);
  if (!payload) { // nothing lay there: what comes now has just arrived
    empty = now();
    payload = await receive(Number(maxAgeMs));
    if (payload) empty = now();
  }
  const message = payload && read(payload), found = message && value(message);
  console.log(found === null ? "stop" : `${message.seq} ${found}`); // here: act, or stop acting
}
