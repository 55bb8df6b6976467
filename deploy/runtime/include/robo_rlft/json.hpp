// A small strict JSON reader (RFC 8259): UTF-8 only, no duplicate keys, no trailing text, bounded depth.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace robo_rlft::json {

class Value {
 public:
  enum class Type { Null, Bool, Number, String, Array, Object };

  Type type = Type::Null;
  bool boolean = false;
  double number = 0.0;
  std::string string;
  std::vector<Value> array;
  std::vector<std::pair<std::string, Value>> object;

  bool is_null() const { return type == Type::Null; }

  // The member of an object, or nullptr where it is absent or null.
  const Value* find(std::string_view key) const;
  // The member of an object; raises Error where it is absent or null.
  const Value& at(std::string_view key) const;

  // Typed content; each raises Error with `what` in the sentence where the type is another one.
  const std::string& as_string(std::string_view what) const;
  double as_number(std::string_view what) const;
  long long as_integer(std::string_view what) const;
  std::vector<double> as_numbers(std::string_view what) const;
  std::vector<std::string> as_strings(std::string_view what) const;
};

// Raises Error with the byte at which the text stops being JSON.
Value parse(std::string_view text);

}  // namespace robo_rlft::json
