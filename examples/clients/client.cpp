// Act on the newest value of one output, never on an old one: the rules of docs/wire.md, on the port of the newest message.
//   apt-get install libzmq3-dev cppzmq-dev libmsgpack-cxx-dev && g++ -std=c++17 -O2 client.cpp -o client -lzmq
//   ./client tcp://127.0.0.1:5572 wheel_speed [MAX_AGE_MS]
#define MSGPACK_NO_BOOST
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <msgpack.hpp>
#include <zmq.hpp>

using Map = std::map<std::string, msgpack::object>;
constexpr int SCHEMA = 1, END = 1024, WITHHELD = 1 | 32 | 256;    // GAP, HOLD, IDLE: no values
constexpr double PROMPT_NS = 20e6, SLACK_NS = 1e6, DRIFT = 2e-4;  // rule 3; a clock further ahead is not the publisher's

double now() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::duration<double, std::nano>(1); }

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "tcp://127.0.0.1:5572", output = argc > 2 ? argv[2] : "wheel_speed";
  const double max_age_ms = argc > 3 ? std::stod(argv[3]) : 60;
  std::string boot, last_boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  zmq::context_t context;
  zmq::socket_t socket(context, ZMQ_SUB);
  socket.set(zmq::sockopt::conflate, 1), socket.set(zmq::sockopt::linger, 0), socket.set(zmq::sockopt::subscribe, "");
  socket.connect(address);
  double offset = NAN, learnt = 0, empty = -INFINITY, last_pub = NAN;  // offset: our clock minus the publisher's, ns
  int64_t last_seq = -1;
  for (int flags = 0; !(flags & END);) {
    zmq::message_t frame;
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) {  // nothing lay there: what comes now has just arrived
      empty = now();
      zmq::pollitem_t items[] = {{socket, 0, ZMQ_POLLIN, 0}};
      if (zmq::poll(items, 1, std::chrono::milliseconds(long(max_age_ms)))) empty = now();
      (void)socket.recv(frame, zmq::recv_flags::dontwait);
    }
    double value = NAN;
    try {
      const auto unpacked = msgpack::unpack(frame.data<char>(), frame.size());
      auto message = unpacked->as<Map>();
      const double pub = message.at("t_pub_ns").as<double>(), end = message.at("t_end_ns").as<double>();
      const auto seq = message.at("seq").as<int64_t>();
      if (message.at("schema").as<int>() != SCHEMA || (seq == last_seq && pub == last_pub)) throw msgpack::type_error();
      const auto from = message.at("boot_id").as<std::string>();
      if (from != last_boot || from.empty()) offset = NAN;  // another clock
      last_seq = seq, last_pub = pub, last_boot = from, flags = message.at("flags").as<int>();
      const double here = now();
      if (!std::isnan(offset) || here - empty <= PROMPT_NS) {  // the smallest offset seen, rising as clocks drift
        offset = std::isnan(offset) ? here - pub : std::min(here - pub, offset + DRIFT * (here - learnt));
        learnt = here;
      }
      const bool same = !boot.empty() && from == boot;
      const double there = same ? here : here - offset;  // NaN while unknown: then nothing below is true
      const bool valid = same ? there < message.at("valid_until_ns").as<double>()
                              : there - pub < message.at("valid_for_ms").as<double>() * 1e6;
      const bool young = there - end <= max_age_ms * 1e6 && there - pub >= -SLACK_NS;
      auto outputs = message.at("outputs").as<Map>();
      if (!(flags & WITHHELD) && !outputs.count(output)) return std::cerr << "no output " << output << std::endl, 2;
      if (valid && young && !(flags & WITHHELD)) value = outputs.at(output).as<Map>().at("value").as<double>();
    } catch (const std::exception&) {  // nothing came, it is no message that can be read, or it has no such value
    }
    if (std::isfinite(value)) std::cout << last_seq << ' ' << value << std::endl;  // here: act
    else std::cout << "stop" << std::endl;                                         // here: stop acting
  }
}
