#include <cstring>

#include "robo_rlft/error.hpp"
#include "robo_rlft/files.hpp"
#include "robo_rlft/log.hpp"

namespace robo_rlft {
namespace {

// Takes pieces off the front; never beyond the end.
class Cursor {
 public:
  explicit Cursor(std::string_view data) : left_(data) {}
  std::size_t left() const { return left_.size(); }

  std::string_view bytes(std::size_t n) {
    if (n > left_.size()) throw Error("a record of the log is shorter than the log's header says");
    const std::string_view out = left_.substr(0, n);
    left_.remove_prefix(n);
    return out;
  }

  template <typename T>
  T one() {
    T out;
    std::memcpy(&out, bytes(sizeof(T)).data(), sizeof(T));
    return out;
  }

  template <typename T>
  std::vector<T> many(std::size_t n) {
    std::vector<T> out(n);
    const std::string_view from = bytes(n * sizeof(T));
    if (n > 0) std::memcpy(out.data(), from.data(), from.size());
    return out;
  }

 private:
  std::string_view left_;
};

Log::Control control(Cursor record, const LogHeader& h) {
  Log::Control out{record.one<ControlRecord>(), {}, {}, {}, {}, {}};
  for (auto* list : {&out.target, &out.action, &out.effort}) *list = record.many<double>(h.actions);
  for (auto* list : {&out.position, &out.velocity}) *list = record.many<double>(h.joints);
  return out;
}

Log::Policy policy(Cursor record, const LogHeader& h) {
  const std::size_t chunk = std::size_t{h.chunk} * h.actions;
  Log::Policy out{record.one<PolicyRecord>(), record.many<float>(h.observation), {}, {}, {}};
  out.noise = record.many<float>(chunk);
  out.prefix = record.many<float>(std::size_t{h.prefix} * h.actions);
  out.actions = record.many<float>(chunk);
  return out;
}

}  // namespace

Log read_log(const std::string& path) {
  const std::string data = read_file(path);
  if (data.size() < sizeof(LogHeader) || data.compare(0, 7, "RRLTLOG") != 0) throw Error(path + " is no log of this runtime");
  Cursor cursor(data);
  Log out;
  out.header = cursor.one<LogHeader>();
  if (out.header.version != kLogVersion) throw Error(path + " is a log of version " + std::to_string(out.header.version) + ", this program reads " + std::to_string(kLogVersion));
  while (cursor.left() >= sizeof(RecordHead)) {
    const auto head = cursor.one<RecordHead>();
    if (head.size > cursor.left()) break;
    const Cursor record(cursor.bytes(head.size));
    if (head.kind == static_cast<std::uint32_t>(RecordKind::Control)) out.control.push_back(control(record, out.header));
    else if (head.kind == static_cast<std::uint32_t>(RecordKind::Policy)) out.policy.push_back(policy(record, out.header));
    else throw Error(path + " is damaged: a record of an unknown kind");
  }
  return out;
}

}  // namespace robo_rlft
